"""Checks that image files exist and are as annotated, and names for those that can't be read."""

import contextlib
import functools
import os
import traceback
from collections import defaultdict
from typing import Any, Optional

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine import dist
from mmengine.dataset import BaseDataset

from rtm_kd.datasets.coco_format import RESIZED_REMEDY
from rtm_kd.utils.errors import RunError, UsageError, first_few
from rtm_kd.utils.image_size import image_size

from .annotations import warn

_SAMPLE = 1000  # images that are opened before a run; it takes about a second


def check_images(dataset: BaseDataset, split: str) -> None:
    """Raise unless every image file that a dataset will read is there, and as it was annotated.

    A few that are cut off, or of another size than annotated, are reported in a warning; the
    former end the run when they are read, see :func:`name_faulty_images`. For these faults the
    main process opens all images of a small dataset, and a thousand of a larger one, evenly
    spread. A dataset that reads its images from elsewhere than files is not checked.

    Raises:
        ValueError: With the first few names and ids of those that are missing or empty, or if
            most are of another size; on every process.
    """
    transforms = getattr(dataset.pipeline, 'transforms', [])
    loads = [each for each in transforms if isinstance(each, LoadImageFromFile)]
    if getattr(dataset, 'backend_args', None) is not None or all(
        each.backend_args is not None or each.file_client_args is not None for each in loads
    ):
        return
    infos = ((index, dataset.get_data_info(index)) for index in range(len(dataset)))
    images = {info['img_path']: _named(info, index) for index, info in infos}
    sizes = {}
    for folder in {os.path.dirname(path) for path in images}:
        # In the order of the listing, in which a network's file system answers many at once.
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            listed = [entry for entry in entries if entry.path in images and entry.is_file()]
            sizes.update((entry.path, entry.stat().st_size) for entry in listed)
    for path in images.keys() - sizes.keys():
        # A folder may be readable without being listable, or spell its names another way.
        if os.path.isfile(path):
            sizes[path] = os.path.getsize(path)
    faults = defaultdict(list)
    for path, identity in images.items():
        if not sizes.get(path):
            faults['are empty' if path in sizes else 'are missing'].append(identity)
    if faults:
        text = '; '.join(
            f'{len(files)} of its {len(dataset)} images {fault}: {first_few(files)}'
            for fault, files in faults.items()
        )
        raise UsageError(
            f'the {split} annotation file {dataset.ann_file} names what is not there: {text}; '
            'copy them again, or set data_prefix'
        )
    # An image that is not turned as its EXIF tag says has another size.
    turned = all(each.color_type in ('color', 'grayscale') for each in loads)
    refusals = [_open_images(dataset, split, turned) if dist.is_main_process() else None]
    # A process that continued alone would wait for the others at its first step.
    dist.broadcast_object_list(refusals)
    if refusals[0] is not None:
        raise UsageError(refusals[0])


def _open_images(dataset: BaseDataset, split: str, turned: bool) -> Optional[str]:
    """Warn of a few faulty images, and return the message if most are of another size."""
    other, damaged = [], []
    count = min(len(dataset), _SAMPLE)
    for number in range(count):
        index = number * len(dataset) // count
        info = dataset.get_data_info(index)
        noted = info.get('width'), info.get('height')
        try:
            size = image_size(info['img_path'])
        except OSError:
            damaged.append(_named(info, index))
            continue
        if turned and None not in noted and noted != size:
            other.append(f'{_named(info, index)}: {noted[0]}x{noted[1]}, not {size[0]}x{size[1]}')
    opened = '' if count == len(dataset) else f'{count} of '
    name = f'of {opened}the {len(dataset)} images of the {split} annotation file {dataset.ann_file}'
    if damaged:
        warn(
            f'{name} {len(damaged)} may be unreadable, and would end the run: '
            f'{first_few(damaged)}; replace or remove them'
        )
    if not other:
        return None
    message = (
        f'{name} {len(other)} are of another size than it says, so that their boxes are wrong: '
        f'{first_few(other)}; {RESIZED_REMEDY}'
    )
    if 2 * len(other) > count:
        return message
    warn(message)
    return None


def name_faulty_images(dataset: BaseDataset) -> None:
    """Let an image that can't be read end the run with its file and id in one sentence.

    MMCV's loader names neither an empty file, nor the id of any.
    """
    # On the dataset itself, since a hook may replace its pipeline, and it is passed to the
    # processes that load.
    dataset.prepare_data = functools.partial(_prepare_data, dataset)


def _prepare_data(dataset: BaseDataset, index: int) -> Any:
    try:
        return type(dataset).prepare_data(dataset, index)
    except (AssertionError, AttributeError, OSError, cv2.error) as error:
        reason = str(error).strip().split('\n')[0]
        path = getattr(error, 'filename', None)
        if isinstance(error, (AssertionError, AttributeError)):
            path = _undecoded(error)
            if path is None:
                raise
            reason = 'it is not an image, or damaged or cut off'
        elif isinstance(error, cv2.error):
            reason = f"OpenCV's {error.func} does not take it ({error.err})"
        own = dataset.get_data_info(index)
        # A mosaic may have read another one.
        infos = (dataset.get_data_info(other) for other in range(len(dataset)) if path)
        info = next((info for info in infos if info['img_path'] == path), own)
        raise RunError(
            f"the image {info['img_path']} (id {info.get('img_id', index)}) can't be used: "
            f'{reason}; replace the file, or remove it from {dataset.ann_file}'
        ) from error


def _undecoded(error: Exception) -> Optional[str]:
    """Return the path of the image that MMCV's loader could not decode, if that is the error.

    The loader reports it in an assertion, which ``python -O`` leaves out: then it fails on the
    next line, which does not name the file.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        values = frame.f_locals
        if frame.f_code is LoadImageFromFile.transform.__code__ and values.get('img', '') is None:
            return values['filename']
    return None


def _named(info: dict, index: int) -> str:
    return f'{info["img_path"]} (image id {info.get("img_id", index)})'
