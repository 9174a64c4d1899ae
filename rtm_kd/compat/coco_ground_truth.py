"""COCO files written by other tools than COCO's.

For: pycocotools <= 2.0.11 and mmdet <= 3.3.
Fault: the evaluation notes a match as the id of its box and takes 0 for no match, so that perfect
detections score less than 1 on a file that counts its boxes from 0. Only one of the boxes that
share an id is kept, and ids that are not numbers, boxes without ``iscrowd`` or ``area``, quoted
numbers and a byte order mark end in a traceback. Categories come in the order of the file, though
MMDetection numbers the labels in the order of the names that it asks for.
Here: a file is read in any encoding that JSON may have and completed when it is indexed, and
categories come in the order of the names.
Can go: when pycocotools marks an unmatched box in another way, and MMDetection looks categories
up one by one.
"""

import functools
import json
from typing import Any

from pycocotools.coco import COCO


def applies() -> bool:
    # No release is free of it.
    return True


def enable() -> None:
    original_init, original_index, original_ids = COCO.__init__, COCO.createIndex, COCO.getCatIds

    @functools.wraps(original_init)
    def __init__(self, annotation_file=None):
        original_init(self)
        if annotation_file is not None:
            with open(annotation_file, 'rb') as file:  # bytes: json detects the encoding
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
    """Add what follows from the rest of a COCO file, in place, and leave what is wrong as it is.

    With ``keep_ids`` annotations are numbered only if their ids don't tell them apart, and not if
    only the evaluation could not use them. Returns whether anything was changed.
    """
    images, annotations, categories = (
        _dicts(content, key) for key in ('images', 'annotations', 'categories')
    )
    changed = _drop_namesakes(content, annotations, categories)

    def put(entry: dict, field: str, value: Any) -> None:
        nonlocal changed
        if entry.get(field) is not value:
            entry[field] = value
            changed = True

    for image in images:
        for field in ('width', 'height'):
            put(image, field, _number(image.get(field)))
    for annotation in annotations:
        for field in ('area', 'iscrowd'):
            put(annotation, field, _number(annotation.get(field)))
        box = annotation.get('bbox')
        if isinstance(box, list) and any(isinstance(edge, str) for edge in box):
            box = [_number(edge) for edge in box]
            put(annotation, 'bbox', box)
        if annotation.get('iscrowd') is None:
            put(annotation, 'iscrowd', 0)
        if annotation.get('area') is None and _is_box(box):
            put(annotation, 'area', box[2] * box[3])
    ids = [annotation.get('id') for annotation in annotations]
    if keep_ids:
        fits = all(isinstance(each, (int, float, str)) for each in ids)
    else:
        fits = all(type(each) is int and each > 0 for each in ids)
    if not fits or len(set(ids)) < len(ids):
        for number, annotation in enumerate(annotations, 1):
            put(annotation, 'id', number)
    return changed


def _dicts(content: Any, key: str) -> list[dict]:
    entries = content.get(key) if isinstance(content, dict) else None
    return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []


def _drop_namesakes(content: Any, annotations: list[dict], categories: list[dict]) -> bool:
    """Drop categories without boxes that share their name with another, as Roboflow's first."""
    named: dict[str, list[dict]] = {}
    for category in categories:
        if isinstance(category.get('name'), str):
            named.setdefault(category['name'], []).append(category)
    if all(len(alike) == 1 for alike in named.values()):
        return False
    labels = [annotation.get('category_id') for annotation in annotations]
    dropped = set()
    for alike in named.values():
        boxed = [category for category in alike if category.get('id') in labels]
        dropped |= {id(category) for category in alike} - {id(kept) for kept in boxed or alike[-1:]}
    content['categories'] = [each for each in content['categories'] if id(each) not in dropped]
    return bool(dropped)


def _number(value: Any) -> Any:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if number is not value and number.is_integer() else number


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(n) in (int, float) for n in box)
