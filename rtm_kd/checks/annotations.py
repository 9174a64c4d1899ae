"""Annotation files in COCO's format: what is refused, and what is left out and said."""

import json
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.visualization import get_palette
from mmengine.logging import print_log

from rtm_kd.compat.coco_ground_truth import complete_annotations
from rtm_kd.utils.errors import UsageError, printable
from rtm_kd.utils.internals import set_palette

# Nearly the largest float32, in which boxes are trained on; NaN and infinities are not within.
_LARGEST = 3.4e38
_DEEPEST = 1000  # calls within each other, Python's own default
_SHOWN = 3  # ids of each kind of fault
# Of corners three quarters reach beyond their image if they are taken for a size, of sizes
# hardly one; and what does by less than this share of the image was drawn carelessly.
_CORNERS, _CARELESS = 0.25, 0.05

# Kind of fault -> ids of those that have it.
_Faults = dict[str, list]


def read_annotations(path: str, ann_file: Optional[str] = None) -> Any:
    """Read a JSON file.

    Args:
        path (str): Path of the file.
        ann_file (str, optional): Its name for the message, where ``path`` is a copy of it.

    Raises:
        ValueError: If it is not JSON, with the place where it stops to be.
    """
    limit = sys.getrecursionlimit()
    try:
        # A program around this may have raised it: lists in lists would break the C stack.
        sys.setrecursionlimit(min(limit, _DEEPEST))
        with open(path, 'rb') as file:  # bytes: json finds out the encoding
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f'the annotation file {ann_file or path} is not JSON ({error}); if it is cut off, '
            'download or export it again'
        ) from error
    finally:
        sys.setrecursionlimit(limit)


def check_annotations(
    content: Any, ann_file: str, split: str = 'train', classes: Sequence[str] = ()
) -> None:
    """Raise unless COCO annotations can be used, and say which boxes will not be.

    MMDetection leaves out boxes that are less than a pixel wide or high, outside their image,
    or of an image or a category that the file does not have. COCO has such boxes itself, so
    they are only counted, in a warning, unless there is no other in the file.

    Args:
        content: What the file holds, as JSON is read.
        ann_file (str): Its name, for the messages.
        split (str): ``'train'``, ``'val'`` or ``'test'``. Of these only the last may be without
            annotations, and only the first without ``iscrowd``, which the evaluation reads.
        classes (Sequence[str]): Names of the categories to use.

    Raises:
        ValueError: If something is missing, there twice or of the wrong kind, with the first
            few ids.
    """
    name = f'the {split} annotation file {ann_file}'
    if not isinstance(content, dict):
        raise UsageError(f"{name} is not in COCO's format: it holds a {type(content).__name__}")
    if split == 'test':
        content.setdefault('annotations', [])
    lists = {key: content.get(key) for key in _FIELDS}
    missing = [key for key, value in lists.items() if not isinstance(value, list)]
    if missing:
        raise UsageError(f"{name} is not in COCO's format: it has no list {_quoted(missing)}")
    if not lists['images']:
        raise UsageError(f'{name} has no images')

    refused: _Faults = defaultdict(list)
    for key, fields in _FIELDS.items():
        if key == 'annotations' and split != 'train':
            fields = {**fields, 'iscrowd': _FLAG}
        _check_records(key, lists[key], fields, refused)
    _refuse(name, refused)
    counts = Counter(category['name'] for category in lists['categories'])
    refused['classes that are the name of several categories'] = [
        label for label in classes if counts[label] > 1
    ]
    if split != 'train':
        # Which the evaluation sorts.
        for key in ('images', 'categories'):
            strings = [entry['id'] for entry in lists[key] if isinstance(entry['id'], str)]
            if len(strings) < len(lists[key]):
                refused[f'{key} whose "id" is a string, beside others that are numbers'] = strings
    _refuse(name, refused)

    images = {image['id']: image for image in lists['images']}
    categories = {category['id'] for category in lists['categories']}
    left_out: _Faults = defaultdict(list)
    for annotation in lists['annotations']:
        fault = _left_out(annotation, images, categories)
        if fault:
            left_out[fault].append(annotation['id'])
    total = sum(map(len, left_out.values()))
    if total and total == len(lists['annotations']):
        raise UsageError(f'{name} has no box that can be used, only {_text(left_out)}')
    _check_corners(name, lists['annotations'], images)
    if total:
        _warn(
            f'{name}: {total} of {len(lists["annotations"])} boxes are left out, as MMDetection '
            f'does: {_text(left_out)}'
        )


@contextmanager
def checked_annotations(split: str) -> Iterator[None]:
    """Have every annotation file checked that a CocoDataset reads while the context is open.

    In this place because COCO's takes half a minute to read, which is not done twice.
    """

    def checked(dataset: CocoDataset, path: str) -> COCO:
        content = read_annotations(path, dataset.ann_file)
        # Here, as the loop around the dataset hands its palette on at once.
        _colour_all_classes(dataset)
        # With the ids of the file, for the messages.
        complete_annotations(content, keep_ids=True)
        check_annotations(content, dataset.ann_file, split, dataset.metainfo.get('classes') or ())
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    own = CocoDataset.COCOAPI
    # A function, and so called as a method of the dataset, which knows name and classes.
    CocoDataset.COCOAPI = checked
    try:
        yield
    finally:
        CocoDataset.COCOAPI = own


def _colour_all_classes(dataset: CocoDataset) -> None:
    """Give a dataset a colour for each class: MMDetection has 80, and draws no more classes."""
    number = len(dataset.metainfo.get('classes') or ())
    palette = dataset.metainfo.get('palette')
    if isinstance(palette, list) and len(palette) < number:
        set_palette(dataset, get_palette('random', number))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and -_LARGEST < value < _LARGEST


def _is_size(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_Check = tuple[Callable[[Any], bool], str]
_ID: _Check = (_is_id, 'a number or a string')
_NAME: _Check = (_is_name, 'a name')
_SIZE: _Check = (_is_size, 'a number above 0')
_FLAG: _Check = (lambda value: value in (0, 1), '0 or 1')
# List of the file -> field of its entries -> what it has to be.
_FIELDS: dict[str, dict[str, _Check]] = {
    'images': {'id': _ID, 'file_name': _NAME, 'width': _SIZE, 'height': _SIZE},
    'categories': {'id': _ID, 'name': _NAME},
    'annotations': {
        'id': _ID,
        'image_id': _ID,
        'category_id': _ID,
        'bbox': (_is_box, 'four finite numbers'),
        'area': (_is_number, 'a finite number'),
    },
}


def _check_records(key: str, records: list, fields: dict[str, _Check], refused: _Faults) -> None:
    seen = set()
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not _is_id(record.get('id')):
            refused[f'{key} without "id"'].append(f'the one at {position}')
            continue
        identity = record['id']
        if identity in seen:
            refused[f'{key} with an "id" that another has'].append(identity)
        seen.add(identity)
        for field, (fits, expected) in fields.items():
            if field not in record:
                refused[f'{key} without "{field}"'].append(identity)
            elif not fits(record[field]):
                refused[f'{key} whose "{field}" is not {expected}'].append(identity)


def _check_corners(name: str, annotations: list, images: dict) -> None:
    """Raise for boxes that are corners where COCO has a corner and a size, as a rule; warn of few.

    They can be told by that they reach beyond their image, and would not as corners.
    """
    known = [each for each in annotations if each['image_id'] in images]
    found = [each['id'] for each in known if _is_of_corners(each, images[each['image_id']])]
    if not found:
        return
    said = _text(
        {
            'as x y width height some boxes reach beyond their image, and as corners x1 y1 '
            'x2 y2 they fit': found
        }
    )
    if len(found) > 1 and len(found) >= _CORNERS * len(known):
        raise UsageError(
            f'{name} seems to have corners for boxes, where COCO has x y width height: {said}; '
            "export it in COCO's format again, or put width = x2 - x1 and height = y2 - y1"
        )
    _warn(f'{name}: {said}; look at these')


def _is_of_corners(annotation: dict, image: dict) -> bool:
    x, y, width, height = annotation['bbox']
    far = 1 + _CARELESS
    beyond = x + width > far * image['width'] or y + height > far * image['height']
    fits = 0 <= x < width <= image['width'] and 0 <= y < height <= image['height']
    return beyond and fits


def _left_out(annotation: dict, images: dict, categories: set) -> Optional[str]:
    """Say why MMDetection leaves a box out, None if it does not."""
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


def _refuse(name: str, faults: _Faults) -> None:
    faults = {fault: ids for fault, ids in faults.items() if ids}
    if faults:
        raise UsageError(f'{name} has {_text(faults)}; correct it or export it again')


def _text(faults: _Faults) -> str:
    return '; '.join(
        f'{fault}: {len(ids)} ({", ".join(map(repr, ids[:_SHOWN]))}'
        + (', ...)' if len(ids) > _SHOWN else ')')
        for fault, ids in faults.items()
    )


def _warn(message: str) -> None:
    print_log(printable(message), logger='current', level=logging.WARNING)


def _quoted(names: list) -> str:
    return ' and '.join(f'"{name}"' for name in names)
