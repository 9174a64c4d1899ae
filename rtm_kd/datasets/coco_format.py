"""COCO's annotation files: how they are read, and which fields they must have."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Container
from typing import Any, Optional

from rtm_kd.utils.errors import UsageError, first_few

# Almost the largest float32, in which boxes are trained on; NaN and Inf are beyond it.
_LARGEST = 3.4e38
_DEEPEST = 1000  # nested calls, Python's own default
#: What to do about images of another size than the annotations say.
RESIZED_REMEDY = (
    'put back the images as they were annotated (resized or turned since, or turned by their EXIF '
    'tag?), or export the annotations again'
)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and -_LARGEST < value < _LARGEST


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_Check = tuple[Callable[[Any], bool], str]
_ID: _Check = (lambda value: isinstance(value, (int, float, str)), 'a number or a string')
_NAME: _Check = (lambda value: isinstance(value, str) and value != '', 'a name')
_SIZE: _Check = (lambda value: _is_number(value) and value > 0, 'a number above 0')
#: List of a file -> field of its entries -> what that has to be.
FIELDS: dict[str, dict[str, _Check]] = {
    'images': {'id': _ID, 'file_name': _NAME, 'width': _SIZE, 'height': _SIZE},
    'annotations': {
        'id': _ID,
        'image_id': _ID,
        'category_id': _ID,
        'bbox': (_is_box, 'four finite numbers'),
        'area': (_is_number, 'a finite number'),
        'iscrowd': (lambda value: value in (0, 1), '0 or 1'),
    },
    'categories': {'id': _ID, 'name': _NAME},
}


def read_annotations(path: str, ann_file: Optional[str] = None) -> Any:
    """Read a JSON file; ``ann_file`` is its name for the message, where ``path`` is a copy of it.

    Raises:
        ValueError: If it is not JSON, with the place of the first fault.
    """
    limit = sys.getrecursionlimit()
    try:
        # With a limit that the calling program has raised, nested lists would overflow the C stack.
        sys.setrecursionlimit(min(limit, _DEEPEST))
        with open(path, 'rb') as file:  # bytes: json detects the encoding
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f'the annotation file {ann_file or path} is not JSON ({error}); if it is cut off, '
            'download or export it again'
        ) from error
    finally:
        sys.setrecursionlimit(limit)


def missing_lists(content: Any) -> list[str]:
    """Return the lists of COCO's format that the content of a file lacks."""
    content = content if isinstance(content, dict) else {}
    return [key for key in FIELDS if not isinstance(content.get(key), list)]


def find_faults(content: dict[str, Any], unchecked: Container[str] = ()) -> dict[str, list]:
    """Return the kinds of faults in a file, each with the ids of the entries that have it.

    Args:
        content (dict): Has all of the lists.
        unchecked (Container[str]): Fields that may be missing, or hold anything.
    """
    faults = defaultdict(list)
    for key, fields in FIELDS.items():
        seen = set()
        for position, record in enumerate(content[key]):
            identity = record.get('id') if isinstance(record, dict) else None
            if not _ID[0](identity):
                faults[f'{key} without "id"'].append(f'the one at {position}')
                continue
            if identity in seen:
                faults[f'{key} with an "id" that another has'].append(identity)
            seen.add(identity)
            for field, (fits, expected) in fields.items():
                if field in unchecked:
                    continue
                if field not in record:
                    faults[f'{key} without "{field}"'].append(identity)
                elif not fits(record[field]):
                    faults[f'{key} whose "{field}" is not {expected}'].append(identity)
    return faults


def faults_text(faults: dict[str, list]) -> str:
    """Return each kind of fault with its number and the first few ids."""
    return '; '.join(
        f'{fault}: {len(ids)} ({first_few(list(map(repr, ids)))})' for fault, ids in faults.items()
    )
