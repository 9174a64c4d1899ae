import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from rtm_kd.compat.coco_ground_truth import complete_annotations
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import image_size

from .base import ALL, Annotations, Converted, path_ends, split_name, with_progress
from .coco_writer import (
    NO_FILE,
    OTHER_CLASSES,
    OTHER_SIZE,
    UNREADABLE,
    check_class_names,
)
from .other_formats import name_other_format

# What is read here; everything else is left to the dataset.
_ID = (int, str)
_FIELDS = {
    'images': {'id': _ID, 'file_name': str},
    'annotations': {'image_id': _ID, 'category_id': _ID, 'bbox': list},
    'categories': {'id': _ID, 'name': str},
}
# Image names of a file that are looked for in each folder.
_TRIED = 20
_SPLIT = re.compile(r'(?<![a-z])(train|val|test)(val|ing|id|idation|set)?(?![a-z])')


class CocoAnnotations(Annotations):
    """COCO's JSON, which stays as it is wherever it can.

    Args:
        path (Path): A file, or a folder with a file for each split, in it or up to two folders
            below: ``annotations/instances_train2017.json``, ``train/_annotations.coco.json``.
        root (Path): Folder of the dataset, below which the images are.
        images (Path, optional): Folder of the images. Found by their names by default.

    Raises:
        ValueError: If it is no COCO file, or two classes have one name.
    """

    format = 'COCO'

    def __init__(self, path: Path, root: Path, images: Optional[Path] = None) -> None:
        self.path, self.root, self.images = path, root, images
        self._files = {ALL: path} if path.is_file() else coco_files(path)
        self.splits = list(self._files)
        # A file for testing, without annotations, is not read unless it is asked for.
        self._contents: dict[str, tuple[dict, bool]] = {}
        first = self.split_for('train') or self.splits[0]
        self.classes = _classes(self._read(first)[0], self._files[first])

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        file = self._files[split]
        content, completed = self._read(split)
        classes = classes or self.classes
        check_class_names([c['name'] for c in content['categories']], f'the categories of {file}')
        dropped: dict[str, list[str]] = {}
        folder, images = _images(content, file, self.root, self.images, dropped)
        # The order in which MMYOLO's own tools number the classes is that of the file.
        known = [c['name'] for c in content['categories'] if c['name'] in classes]
        as_it_is = not completed and images == content['images'] and known == classes
        content = _with_classes(content, images, classes, dropped)
        return Converted(content, folder, dropped, file=file if as_it_is else None)

    def _read(self, split: str) -> tuple[dict[str, Any], bool]:
        """Return what a file holds, and whether it had to be completed."""
        if split not in self._contents:
            self._contents[split] = _read(self._files[split])
        return self._contents[split]


def coco_files(folder: Path) -> dict[str, Path]:
    """Return the annotation files of a dataset's folder by split.

    Raises:
        ValueError: If a split has more than one.
    """
    found: dict[str, list[Path]] = {}
    for pattern in ('*.json', '*/*.json', '*/*/*.json'):
        for file in sorted(folder.glob(pattern)):
            if _looks_like_coco(file):
                parents = file.relative_to(folder).parts[-2::-1]
                splits = [_split_in(file.stem), *map(split_name, parents)]
                found.setdefault(next(filter(None, splits), ALL), []).append(file)
    if 'train' in found:
        found.pop(ALL, None)
    return {split: _the_one(files, split, folder) for split, files in found.items()}


def _the_one(files: list[Path], split: str, folder: Path) -> Path:
    # COCO's own folder also has the captions and key points of each split.
    files = [file for file in files if file.stem.startswith('instances')] or files
    depth = min(len(file.parts) for file in files)
    files = [file for file in files if len(file.parts) == depth]
    if len(files) > 1:
        names = ', '.join(str(file.relative_to(folder)) for file in files)
        of = '' if split == ALL else f' for {split}'
        option = '--val-ann' if split in ('val', 'test') else '--train-ann'
        raise UsageError(
            f'{folder} has more than one annotation file{of} ({names}); name the one to use with '
            f'{option}'
        )
    return files[0]


def _looks_like_coco(file: Path) -> bool:
    """Whether a JSON file has most of COCO's lists: a damaged one is to be named as such."""
    try:
        text = file.read_bytes().replace(b'\0', b'')  # of UTF-16
    except OSError:
        return False
    return sum(f'"{part}"'.encode() in text for part in _FIELDS) > 1


def _images(
    content: dict[str, Any],
    file: Path,
    root: Path,
    folder: Optional[Path],
    dropped: dict[str, list[str]],
) -> tuple[Path, list[dict]]:
    """Return the folder of the images, and those that are there and as the file says."""
    folder, ends = _find_image_folder(content, file, root, folder)
    images, seen = [], set()
    for image in with_progress(content['images']):
        name = _name_in(folder, image['file_name'], ends)
        if name is None:
            dropped.setdefault(NO_FILE, []).append(image['file_name'])
            continue
        if ends and name in seen:
            where = f'{image["file_name"]}, as {name}'
            dropped.setdefault('images whose file another has as well', []).append(where)
            continue
        seen.add(name)
        try:
            width, height = image_size(folder / name)
        except OSError:
            dropped.setdefault(UNREADABLE, []).append(name)
            continue
        noted = image.get('width', width), image.get('height', height)
        if noted != (width, height):
            where = f'{name}: {noted[0]}x{noted[1]}, not {width}x{height}'
            dropped.setdefault(OTHER_SIZE, []).append(where)
            continue
        images.append({**image, 'file_name': name, 'width': width, 'height': height})
    return folder, images


def _find_image_folder(
    content: dict[str, Any], file: Path, root: Path, folder: Optional[Path]
) -> tuple[Path, bool]:
    """Return the folder that has the images, and whether by the ends of their names alone."""
    names = [image['file_name'] for image in content['images'][:_TRIED]]
    split = _split_in(file.stem) or split_name(file.parent.name)
    folders = [folder] if folder else list(_folders(file, root, split))
    best, most = (folders[0], False), 0
    for ends in (False, True):
        for place in folders:
            count = sum(_name_in(place, name, ends) is not None for name in names)
            if count > most:
                best, most = (place, ends), count
            if count == len(names):
                return best
    if not most and names:
        where = f'{folder} has none of them' if folder else f'no folder in {root} has them'
        raise UsageError(
            f'{file} names images such as {names[0]}, and {where}; name their folder with '
            '--train-img or --val-img'
        )
    return best


def _folders(file: Path, root: Path, split: Optional[str]) -> Iterable[Path]:
    if split:
        yield from (root / 'images' / split, root / split)
    yield from (file.parent, root / 'images', root)
    for place in (file.parent, file.parent.parent, root):
        if place == root or root in place.parents:
            yield from (child for child in sorted(place.glob('*')) if child.is_dir())
    yield from sorted(child for child in root.glob('*/*/') if child.is_dir())


def _name_in(folder: Path, name: str, ends: bool) -> Optional[str]:
    names = path_ends(name) if ends else [name]
    return next((name for name in names if os.path.isfile(folder / name)), None)


def _split_in(name: str) -> Optional[str]:
    """Return the split that a file's name tells of, such as instances_train2017."""
    found = _SPLIT.search(name.lower())
    return found and found[1]


def _read(file: Path) -> tuple[dict[str, Any], bool]:
    try:
        content = json.loads(file.read_bytes())  # json finds out the encoding
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} can't be read as JSON ({error})") from error
    parts = content if isinstance(content, dict) else {}
    missing = [part for part in _FIELDS if not isinstance(parts.get(part), list)]
    if missing:
        other = name_other_format(file)
        has = ', '.join(map(str, list(parts)[:8])) or type(content).__name__
        raise UsageError(
            f'{file} is JSON, but not COCO: it has no list of {" and ".join(missing)} '
            f'(it has: {has}); '
            + (f'it is {other}' if other else 'known are COCO JSON, YOLO txt and VOC XML')
        )
    completed = complete_annotations(content)
    for part, fields in _FIELDS.items():
        for entry in content[part]:
            faulty = [
                field
                for field, kinds in fields.items()
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kinds)
            ]
            if faulty:
                raise UsageError(
                    f'{file} is not COCO as it should be: of its {part} one has no '
                    f'{" and ".join(faulty)} as COCO asks for: {str(entry)[:100]}'
                )
    return content, completed


def _classes(content: dict[str, Any], file: Path) -> list[str]:
    names = [category['name'] for category in content['categories']]
    check_class_names(names, f'the categories of {file}')
    boxed = {annotation['category_id'] for annotation in content['annotations']}
    # Roboflow's first category is the name of the project, above all others and without boxes.
    above = {
        category['supercategory']
        for category in content['categories']
        if isinstance(category.get('supercategory'), str)
        and category['supercategory'] != category['name']
    }
    classes = [
        category['name']
        for category in content['categories']
        if category['id'] in boxed or category['name'] not in above
    ]
    return classes or names


def _with_classes(
    content: dict[str, Any],
    images: list[dict],
    classes: list[str],
    dropped: dict[str, list[str]],
) -> dict[str, Any]:
    """Return the annotations of these images, with these classes alone and in this order."""
    ids = {category['name']: category['id'] for category in content['categories']}
    names = {category['id']: category['name'] for category in content['categories']}
    free = max((number for number in names if isinstance(number, int)), default=-1) + 1
    categories = []
    for name in classes:
        if name not in ids:
            ids[name], free = free, free + 1
        categories.append(dict(id=ids[name], name=name))
    files = {image['id']: image['file_name'] for image in content['images']}
    used = {image['id'] for image in images}
    kept = []
    for annotation in content['annotations']:
        name, image_id = names.get(annotation['category_id']), annotation['image_id']
        where = f'{files.get(image_id)}, id {annotation["id"]}'
        if name not in classes:
            dropped.setdefault(OTHER_CLASSES, []).append(f'{where}: {name}')
        elif image_id not in files:
            dropped.setdefault('boxes of no image', []).append(where)
        elif image_id in used:
            kept.append(annotation)
    return {**content, 'images': images, 'categories': categories, 'annotations': kept}
