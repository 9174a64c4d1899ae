"""Formats that are not read: their names, and how to export one that is."""

import itertools
import json
from pathlib import Path
from typing import Optional

_ENOUGH = 65536  # bytes in which an XML format shows
_TRIED = 20
_FORMATS = {
    '.csv': 'a table (CSV), whose columns differ from tool to tool; export COCO, YOLO or VOC from '
    'the tool that wrote it, or write COCO JSON from it',
    '.tfrecord': 'TFRecord; export COCO, YOLO or VOC from the tool that wrote it',
    '.xml': "CVAT's own XML; export the task as COCO 1.0, YOLO 1.1 or PASCAL VOC 1.1 instead",
}
_VIA = "VIA's JSON; in VIA take Annotation > Export Annotations (COCO format)"
_LABEL_STUDIO = "Label Studio's own JSON; export the project as COCO or YOLO instead"
# Keys of a JSON file, those of its first entry behind a dot, by which its format shows.
_JSON_FORMATS = [
    (
        {'shapes'},
        "LabelMe's JSON, a file for each image; labelme2coco (on PyPI) turns it into COCO's",
    ),
    ({'items', 'categories'}, "Datumaro's JSON; datum convert -f coco_instances writes COCO's"),
    ({'_via_img_metadata'}, _VIA),
    # Without its project VIA writes only the images.
    ({'.filename', '.regions'}, _VIA),
    ({'.data', '.annotations'}, _LABEL_STUDIO),
    ({'.data', '.completions'}, _LABEL_STUDIO),
    (
        {'.image', '.annotations'},
        "Create ML's JSON; export it as COCO or YOLO from the tool that wrote it",
    ),
]


def name_other_format(path: Path) -> Optional[str]:
    """Return the format that a file, or one of a folder's files, has, and how to convert it.

    Such as ``"CVAT's own XML; export ..."``; None if it is unknown as well.
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
    try:
        if suffix == '.json':
            content = json.loads(file.read_bytes())
            entries = content.values() if isinstance(content, dict) else content
            first = next(iter(entries), None)
            keys = {*content} if isinstance(content, dict) else set()
            keys |= {f'.{key}' for key in first} if isinstance(first, dict) else set()
            return next((name for shown, name in _JSON_FORMATS if shown <= keys), None)
        if suffix == '.xml':
            with open(file, 'rb') as part:
                if b'<annotations' not in part.read(_ENOUGH):
                    return None
    except (OSError, TypeError, ValueError, RecursionError):
        return None
    return _FORMATS.get('.tfrecord' if suffix.startswith('.tfrecord') else suffix)
