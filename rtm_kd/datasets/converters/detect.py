"""Which format a dataset's annotations are in."""

from collections import Counter
from pathlib import Path
from typing import Optional

from rtm_kd.utils.errors import UsageError

from .base import Annotations, files_with, images_below
from .coco import CocoAnnotations, coco_files
from .other_formats import name_other_format
from .voc import VocAnnotations, annotations_folder, is_voc
from .yolo import YoloAnnotations, find_yaml, lists_images, yolo_labels_below

_KNOWN = (
    'known are COCO (a .json with images, annotations and categories), YOLO (data.yaml, or .txt '
    'files in labels/ for those in images/) and VOC (.xml files in Annotations/)'
)


def open_annotations(
    path: Path,
    root: Path,
    images: Optional[Path] = None,
    names: Optional[list[str]] = None,
) -> Annotations:
    """Read annotations of whatever format they are.

    Args:
        path (Path): The file or folder.
        root (Path): Folder of the dataset.
        images (Path, optional): Folder of the images, where it is not found by itself.
        names (list[str], optional): The classes, where a format has only their numbers.

    Raises:
        ValueError: If the format is not known, naming what was found and what is known.
    """
    if not path.exists():
        raise UsageError(f'there is no {path}')
    kind = _kind(path, root)
    if kind == 'coco':
        return CocoAnnotations(path, root, images)
    if kind == 'yolo':
        return YoloAnnotations(path, root, images, names)
    if kind == 'voc':
        return VocAnnotations(path, root, images)
    other = name_other_format(path)
    raise UsageError(f'{path} {_found(path)}; {_KNOWN}' + (f'; {other}' if other else ''))


def _kind(path: Path, root: Path) -> Optional[str]:
    if path.is_dir():
        return _kind_of_folder(path)
    suffix = path.suffix.lower()
    if suffix == '.json':
        return 'coco'
    if suffix in ('.yaml', '.yml'):
        return 'yolo'
    if suffix == '.txt':
        in_voc = any(map(annotations_folder, (root, *path.parents[:3])))
        return 'voc' if in_voc else 'yolo' if lists_images(path) else None
    return None


def _kind_of_folder(folder: Path) -> Optional[str]:
    if find_yaml(folder) is not None:
        return 'yolo'
    if coco_files(folder):
        return 'coco'
    if any(is_voc(file) for file in files_with(folder, '.xml')):
        return 'voc'
    labels = folder
    if folder.name == 'images' or 'images' in folder.parts:
        parts = list(folder.parts)
        parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
        labels = Path(*parts)
    if any(True for place in {folder, labels} for _ in yolo_labels_below(place)):
        return 'yolo'
    return None


def _found(path: Path) -> str:
    if path.is_file():
        return f'is a {path.suffix or "file without a suffix"}, in no known format'
    kinds = Counter(file.suffix.lower() or '(no suffix)' for file in files_with(path, ''))
    images = len(images_below(path))
    if not kinds:
        return 'is an empty folder'
    has = ', '.join(f'{count} {kind}' for kind, count in kinds.most_common(6))
    return f'has files ({has}; {images} images), but no annotations in a known format'
