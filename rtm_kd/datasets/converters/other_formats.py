"""Formats that are not read: what they are called, and how to get one that is."""

import itertools
import json
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

_ENOUGH = 65536  # bytes in which a format shows
_TRIED = 20

_LABELME = "LabelMe's JSON, a file for each image; labelme2coco (on PyPI) turns it into COCO's"
_VIA = "VIA's JSON; in VIA take Annotation > Export Annotations (COCO format)"
_LABEL_STUDIO = "Label Studio's own JSON; export the project as COCO or YOLO instead"
_CREATE_ML = "Create ML's JSON; export it as COCO or YOLO from the tool that wrote it"
_DATUMARO = "Datumaro's JSON; datum convert -f coco_instances writes COCO's"
_CVAT = "CVAT's own XML; export the task as COCO 1.0, YOLO 1.1 or PASCAL VOC 1.1 instead"
_CSV = (
    'a table (CSV), of which every tool has its own columns; export COCO, YOLO or VOC from the '
    'tool that wrote it, or write COCO JSON from it'
)
_TFRECORD = 'TFRecord; export COCO, YOLO or VOC from the tool that wrote it'


def name_other_format(path: Path) -> Optional[str]:
    """Say which format that is not read a file or a folder's files are in, and what to do.

    Returns:
        str: Such as ``"CVAT's own XML; export ..."``, or None if it is not known either.
    """
    if path.is_file():
        return _format_of(path)
    files = (
        file for suffix in ('json', 'xml', 'csv', 'tfrecord*') for file in path.rglob(f'*.{suffix}')
    )
    for file in itertools.islice(files, _TRIED):
        found = _format_of(file)
        if found:
            return f'{file.relative_to(path)} is {found}'
    return None


def _format_of(file: Path) -> Optional[str]:
    suffix = file.suffix.lower()
    if suffix == '.csv':
        return _CSV
    if suffix.startswith('.tfrecord'):
        return _TFRECORD
    if suffix == '.xml':
        return _CVAT if _root_of(file) == 'annotations' else None
    if suffix == '.json':
        try:
            return _format_of_json(json.loads(file.read_bytes()))
        except (OSError, ValueError, RecursionError):
            return None
    return None


def _format_of_json(content: Any) -> Optional[str]:
    if isinstance(content, list):
        keys = set(content[0]) if content and isinstance(content[0], dict) else set()
        if 'data' in keys and keys & {'annotations', 'completions'}:
            return _LABEL_STUDIO
        return _CREATE_ML if {'image', 'annotations'} <= keys else None
    if not isinstance(content, dict):
        return None
    if 'shapes' in content:
        return _LABELME
    if '_via_img_metadata' in content:
        return _VIA
    if {'items', 'categories'} <= set(content):
        return _DATUMARO
    # Without its project VIA writes the images alone.
    first = next(iter(content.values()), None)
    return _VIA if isinstance(first, dict) and {'filename', 'regions'} <= set(first) else None


def _root_of(file: Path) -> Optional[str]:
    try:
        with open(file, 'rb') as part:
            parser = ElementTree.XMLPullParser(['start'])
            parser.feed(part.read(_ENOUGH))
            return next((entry.tag for _, entry in parser.read_events()), None)
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return None
