"""Detection of the format of annotations, and conversion of a whole dataset."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from rtm_kd.utils.errors import UsageError, printable

from . import files
from .base import Annotations
from .coco import CocoAnnotations, coco_files
from .other_formats import name_other_format
from .voc import VocAnnotations, annotations_folder, is_voc
from .yolo import YoloAnnotations, find_yaml, lists_images, yolo_labels_below

_KNOWN = (
    'known are COCO (a .json with images, annotations and categories), YOLO (data.yaml, or .txt '
    'files in labels/ for those in images/) and VOC (.xml files in Annotations/)'
)


def open_annotations(
    path: Path, root: Path, images: Optional[Path] = None, names: Optional[list[str]] = None
) -> Annotations:
    """Read annotations in the format that is detected; the arguments are :class:`Annotations`'.

    Raises:
        ValueError: If the format is unknown, with what was found and what is known.
    """
    kind = _kind_of_folder(path) if path.is_dir() else _kind_of_file(path, root)
    if kind is not None:
        return kind(path, root, images, names)
    if path.is_file():
        found = f'is a {path.suffix or "file without a suffix"}, in no known format'
    else:
        kinds = Counter(file.suffix.lower() or '(no suffix)' for file in files.below(path, ''))
        has = ', '.join(f'{count} {kind}' for kind, count in kinds.most_common(6))
        found = 'is an empty folder'
        if has:
            count = len(files.images_below(path))
            found = f'has files ({has}; {count} images), but no annotations in a known format'
    other = name_other_format(path)
    raise UsageError(f'{path} {found}; {_KNOWN}' + (f'; {other}' if other else ''))


def convert_dataset(annotations: Annotations, out_dir: str) -> Iterator[str]:
    """Write every split of a dataset into a folder, as ``<split>.json`` in COCO's format.

    Yields:
        str: Lines on what was read, dropped and written.
    """
    for split in annotations.splits:
        converted = annotations.convert(split)
        path = Path(out_dir, f'{split}.json')
        converted.write(path)
        written = f'written {path}, the image folder (data_prefix) is {converted.image_folder}'
        for line in (*converted.summary(), written):
            yield printable(f'{split}: {line}')


def _kind_of_file(path: Path, root: Path) -> Optional[type[Annotations]]:
    suffix = path.suffix.lower()
    if suffix == '.json':
        return CocoAnnotations
    if suffix == '.txt' and any(map(annotations_folder, (root, *path.parents[:3]))):
        return VocAnnotations
    is_yolo = suffix in ('.yaml', '.yml') or (suffix == '.txt' and lists_images(path))
    return YoloAnnotations if is_yolo else None


def _kind_of_folder(folder: Path) -> Optional[type[Annotations]]:
    if find_yaml(folder):
        return YoloAnnotations
    if coco_files(folder):
        return CocoAnnotations
    if any(is_voc(file) for file in files.below(folder, '.xml')):
        return VocAnnotations
    places = {folder, files.swap_folder(folder, 'images', 'labels')}
    return YoloAnnotations if any(any(yolo_labels_below(place)) for place in places) else None
