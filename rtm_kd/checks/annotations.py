"""Checks of COCO annotation files: faults that end a run, and boxes that MMDetection leaves out."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.visualization import get_palette
from mmengine.logging import print_log

from rtm_kd.compat.coco_ground_truth import complete_annotations
from rtm_kd.datasets.coco_format import faults_text, find_faults, missing_lists, read_annotations
from rtm_kd.utils.errors import UsageError, printable
from rtm_kd.utils.internals import set_palette

# Taken for sizes, three quarters of corners reach beyond their image, of sizes hardly one does;
# reaching out by less than this share of the image is carelessness.
_CORNERS, _CARELESS = 0.25, 0.05


def check_annotations(
    content: Any, ann_file: str, split: str = 'train', classes: Sequence[str] = ()
) -> None:
    """Raise unless COCO annotations can be used, and warn of boxes that will not be.

    MMDetection leaves out boxes that are less than a pixel wide or high, outside their image,
    or of an image or a category that the file does not have. COCO has such boxes itself, so
    they are only counted, unless the file has no others.

    Args:
        split (str): ``'train'``, ``'val'`` or ``'test'``. Only the last may be without
            annotations, and only the first without ``iscrowd``, which the evaluation reads.
        classes (Sequence[str]): Names of the categories to use.

    Raises:
        ValueError: If something is missing, duplicated or of the wrong kind, with the first
            few ids.
    """
    name = f'the {split} annotation file {ann_file}'
    if split == 'test' and isinstance(content, dict):
        content.setdefault('annotations', [])
    missing = ' and '.join(f'"{key}"' for key in missing_lists(content))
    if missing:
        raise UsageError(
            f"{name} is not in COCO's format: the {type(content).__name__} in it has no list "
            f'{missing}; export it as COCO (object detection)'
        )
    if not content['images']:
        raise UsageError(f'{name} has no images; export it again with its images')
    faults = find_faults(content, unchecked={'iscrowd'} if split == 'train' else ())
    faults = faults or _ambiguous(content, split, classes)
    if faults:
        raise UsageError(f'{name} has {faults_text(faults)}; correct it or export it again')

    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    left_out = defaultdict(list)
    for annotation in content['annotations']:
        fault = _left_out(annotation, images, categories)
        if fault:
            left_out[fault].append(annotation['id'])
    total = sum(map(len, left_out.values()))
    if total and total == len(content['annotations']):
        raise UsageError(
            f'{name} has no box that can be used, only {faults_text(left_out)}; correct it or '
            'export it again'
        )
    _check_corners(
        name, [each for each in content['annotations'] if each['image_id'] in images], images
    )
    if total:
        warn(
            f'{name}: {total} of {len(content["annotations"])} boxes are left out, as MMDetection '
            f'does: {faults_text(left_out)}'
        )


@contextmanager
def checked_annotations(split: str) -> Iterator[None]:
    """Check every annotation file that a CocoDataset reads while the context is open.

    It is done here because reading COCO's takes half a minute, too long to do it twice.
    """

    def checked(dataset: CocoDataset, path: str) -> COCO:
        content = read_annotations(path, dataset.ann_file)
        classes = dataset.metainfo.get('classes') or ()
        palette = dataset.metainfo.get('palette')
        # MMDetection has 80 colours, and draws no more classes. It is set here since the loop
        # around the dataset passes its palette on right after.
        if isinstance(palette, list) and len(palette) < len(classes):
            set_palette(dataset, get_palette('random', len(classes)))
        # With the ids of the file, for the messages.
        complete_annotations(content, keep_ids=True)
        check_annotations(content, dataset.ann_file, split, classes)
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    own = CocoDataset.COCOAPI
    # A function, so that it is called as a method of the dataset, which has name and classes.
    CocoDataset.COCOAPI = checked
    try:
        yield
    finally:
        CocoDataset.COCOAPI = own


def _ambiguous(content: dict, split: str, classes: Sequence[str]) -> dict[str, list]:
    """Return classes of several categories, and ids that the evaluation can't sort."""
    counts = Counter(category['name'] for category in content['categories'])
    twice = [label for label in classes if counts[label] > 1]
    faults = {'classes that are the name of several categories': twice} if twice else {}
    for key in ('images', 'categories') if split != 'train' else ():
        strings = [entry['id'] for entry in content[key] if isinstance(entry['id'], str)]
        if 0 < len(strings) < len(content[key]):
            faults[f'{key} whose "id" is a string, beside others that are numbers'] = strings
    return faults


def _check_corners(name: str, annotations: list[dict], images: dict) -> None:
    """Raise if boxes are corners, where COCO has a corner and a size; warn if only a few are.

    Such boxes reach beyond their image as sizes, and don't as corners.
    """
    found = []
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        image, far = images[annotation['image_id']], 1 + _CARELESS
        beyond = x + width > far * image['width'] or y + height > far * image['height']
        if beyond and 0 <= x < width <= image['width'] and 0 <= y < height <= image['height']:
            found.append(annotation['id'])
    if not found:
        return
    kind = (
        'as x y width height some boxes reach beyond their image, and as corners x1 y1 x2 y2 they '
        'fit'
    )
    text = faults_text({kind: found})
    if len(found) > 1 and len(found) >= _CORNERS * len(annotations):
        raise UsageError(
            f'{name} seems to have corners for boxes, where COCO has x y width height: {text}; '
            "export it in COCO's format again, or put width = x2 - x1 and height = y2 - y1"
        )
    warn(f'{name}: {text}; look at these')


def _left_out(annotation: dict, images: dict, categories: set) -> Optional[str]:
    """Return why MMDetection leaves a box out, None if it does not."""
    image = images.get(annotation['image_id'])
    if image is None:
        return 'of an image that the file does not have'
    if annotation['category_id'] not in categories:
        return 'of a category that the file does not have'
    x, y, width, height = annotation['bbox']
    if width < 1 or height < 1 or annotation['area'] <= 0:
        return 'less than a pixel wide or high, or without area'
    if x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
        return 'outside its image'
    return None


def warn(message: str) -> None:
    """Log a warning as one line that is safe to print."""
    print_log(printable(message), 'current', logging.WARNING)
