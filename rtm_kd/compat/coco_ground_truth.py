"""COCO files of other tools than COCO's.

For: pycocotools <= 2.0.11 and mmdet <= 3.3.
Fault: the evaluation notes a match as the id of its box, and takes 0 for none, so that perfect
detections score less than 1 on a file that counts its boxes from 0. Of boxes of one id all but
one are lost, and ids that are no numbers, boxes without ``iscrowd`` or ``area``, numbers in
quotes and a byte order mark end in a traceback. Categories come in the order of the file, though
MMDetection numbers the labels by the order of the names that it asks for.
Here: a file is read in any encoding that JSON may have and completed as it is indexed, and
categories come in the order of the names.
Can go: when pycocotools tells a match from none by something else, and MMDetection looks
categories up one by one.
"""

import functools
import json
from typing import Any

from pycocotools.coco import COCO


def applies() -> bool:
    # No release is known that does without.
    return True


def enable() -> None:
    original_init, original_index, original_ids = COCO.__init__, COCO.createIndex, COCO.getCatIds

    @functools.wraps(original_init)
    def __init__(self, annotation_file=None):
        original_init(self)
        if annotation_file is not None:
            with open(annotation_file, 'rb') as file:  # bytes: json finds out the encoding
                self.dataset = json.load(file)
            self.createIndex()

    @functools.wraps(original_index)
    def createIndex(self):
        complete_annotations(self.dataset)
        original_index(self)

    @functools.wraps(original_ids)
    def getCatIds(self, catNms=[], supNms=[], catIds=[]):
        found = original_ids(self, catNms, supNms, catIds)
        if isinstance(catNms, str) or not len(catNms):
            return found
        place = {name: number for number, name in enumerate(catNms)}
        names = {category['id']: category['name'] for category in self.dataset['categories']}
        return sorted(found, key=lambda identity: place[names[identity]])

    COCO.__init__, COCO.createIndex, COCO.getCatIds = __init__, createIndex, getCatIds


def complete_annotations(content: Any, keep_ids: bool = False) -> bool:
    """Put in what follows from the rest of a COCO file, and leave what is wrong as it is.

    Args:
        content: What the file holds; changed in place.
        keep_ids (bool): Number the annotations only if their ids don't tell them apart, and
            not if the evaluation alone could not use them.

    Returns:
        bool: Whether anything was changed.
    """
    images, annotations, categories = (
        _dicts(content, key) for key in ('images', 'annotations', 'categories')
    )
    changed = _drop_namesakes(content, annotations, categories)
    for image in images:
        changed |= _as_numbers(image, 'width', 'height')
    for annotation in annotations:
        changed |= _as_numbers(annotation, 'area', 'iscrowd')
        box = annotation.get('bbox')
        if isinstance(box, list) and any(isinstance(edge, str) for edge in box):
            annotation['bbox'] = box = [_number(edge) for edge in box]
            changed = True
        if annotation.get('iscrowd') is None:
            annotation['iscrowd'] = 0
            changed = True
        if annotation.get('area') is None and _is_box(box):
            annotation['area'] = box[2] * box[3]
            changed = True
    ids = [annotation.get('id') for annotation in annotations]
    fits = _tells_apart if keep_ids else _is_counted
    if not all(map(fits, ids)) or len(set(ids)) < len(ids):
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
        changed = True
    return changed


def _dicts(content: Any, key: str) -> list[dict]:
    entries = content.get(key) if isinstance(content, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _drop_namesakes(content: Any, annotations: list[dict], categories: list[dict]) -> bool:
    """Drop categories without boxes of a name that another has, as Roboflow's first one."""
    named: dict[str, list[dict]] = {}
    for category in categories:
        if isinstance(category.get('name'), str):
            named.setdefault(category['name'], []).append(category)
    if all(len(alike) == 1 for alike in named.values()):
        return False
    labels = [annotation.get('category_id') for annotation in annotations]
    dropped = []
    for alike in named.values():
        boxed = [category for category in alike if category.get('id') in labels]
        kept = boxed or alike[-1:]
        dropped += [id(category) for category in alike if not any(category is k for k in kept)]
    content['categories'] = [each for each in content['categories'] if id(each) not in dropped]
    return bool(dropped)


def _as_numbers(entry: dict, *fields: str) -> bool:
    changed = False
    for field in fields:
        if isinstance(entry.get(field), str):
            number = _number(entry[field])
            changed |= number is not entry[field]
            entry[field] = number
    return changed


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tells_apart(identity: Any) -> bool:
    return isinstance(identity, (int, float, str))


def _is_counted(identity: Any) -> bool:
    return isinstance(identity, int) and not isinstance(identity, bool) and identity > 0
