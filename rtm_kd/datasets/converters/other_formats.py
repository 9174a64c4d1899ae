"""Formats that are not read: their names, and how to export one that is."""

import itertools
import json
from pathlib import Path
from typing import Any, Optional

_ENOUGH = 65536  # bytes in which an XML format shows
_TRIED = 20

_LABELME = "LabelMe's JSON, a file for each image; labelme2coco (on PyPI) turns it into COCO's"
_VIA = "VIA's JSON; in VIA take Annotation > Export Annotations (COCO format)"
_LABEL_STUDIO = "Label Studio's own JSON; export the project as COCO or YOLO instead"
_CREATE_ML = "Create ML's JSON; export it as COCO or YOLO from the tool that wrote it"
_DATUMARO = "Datumaro's JSON; datum convert -f coco_instances writes COCO's"
_CVAT = "CVAT's own XML; export the task as COCO 1.0, YOLO 1.1 or PASCAL VOC 1.1 instead"
_CSV = (
    'a table (CSV), whose columns differ from tool to tool; export COCO, YOLO or VOC from the '
    'tool that wrote it, or write COCO JSON from it'
)
_TFRECORD = 'TFRecord; export COCO, YOLO or VOC from the tool that wrote it'


def name_other_format(path: Path) -> Optional[str]:
    """Name the format that is not read of a file, or of a folder's files, and the remedy.

    Returns:
        str: Such as ``"CVAT's own XML; export ..."``, or None if it is unknown as well.
    """
    if path.is_file():
        return _format_of(path)
    suffixes = ('json', 'xml', 'csv', 'tfrecord*')
    files = (file for suffix in suffixes for file in path.rglob(f'*.{suffix}'))
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
    try:
        if suffix == '.xml':
            with open(file, 'rb') as part:
                return _CVAT if b'<annotations' in part.read(_ENOUGH) else None
        return _format_of_json(json.loads(file.read_bytes())) if suffix == '.json' else None
    except (OSError, ValueError, RecursionError):
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
    if {'items', 'categories'} <= set(content):
        return _DATUMARO
    # Without its project VIA writes only the images.
    first = next(iter(content.values()), None)
    is_via = isinstance(first, dict) and {'filename', 'regions'} <= set(first)
    return _VIA if is_via or '_via_img_metadata' in content else None
