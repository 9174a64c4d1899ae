import itertools
import json
from pathlib import Path
from typing import Any, Optional

from rtm_kd.utils.errors import UsageError

from .base import ALL, Annotations, Converted, split_name
from .coco_writer import OTHER_CLASSES, check_class_names, describe, describe_dropped

# What is read here; everything else is left to the dataset.
_ID = (int, str)
_FIELDS = {
    'images': {'id': _ID, 'file_name': str, 'width': (int, float), 'height': (int, float)},
    'annotations': {'image_id': _ID, 'category_id': _ID, 'bbox': list},
    'categories': {'id': _ID, 'name': str},
}
# Image names of a file that are looked for in each folder.
_TRIED = 20
# More JSON files in a folder than COCO's own has.
_MANY = 12


class CocoAnnotations(Annotations):
    """COCO's JSON, which stays as it is wherever it can.

    Args:
        path (Path): A file, or a folder with a file for each split: in ``annotations/``, or
            ``_annotations.coco.json`` among the images of a split, as Roboflow has it.
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
        self._contents: dict[str, dict] = {}
        first = self.split_for('train') or self.splits[0]
        self.classes = _classes(self._read(first), self._files[first])

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        file, content = self._files[split], self._read(split)
        classes = classes or self.classes
        check_class_names([c['name'] for c in content['categories']], f'the categories of {file}')
        known = [c['name'] for c in content['categories'] if c['name'] in classes]
        content, dropped = _with_classes(content, classes)
        return Converted(
            content,
            self.images or find_image_folder(content, file, self.root),
            [describe(content), *describe_dropped(dropped)],
            # CocoDataset numbers the classes in the order of the file.
            file if known == classes else None,
        )

    def _read(self, split: str) -> dict[str, Any]:
        if split not in self._contents:
            self._contents[split] = _read(self._files[split])
        return self._contents[split]


def coco_files(folder: Path) -> dict[str, Path]:
    """Return the annotation files of a dataset's folder by split.

    Raises:
        ValueError: If a split has more than one.
    """
    found: dict[str, list[Path]] = {}
    files = sorted({*folder.glob('*.json'), *folder.glob('annotations/*.json')})
    if len(files) > _MANY:
        return {}  # one for each image, as LabelMe writes them
    for file in files:
        split = _split_in(file.stem)
        if split:
            found.setdefault(split, []).append(file)
    for file in sorted(folder.glob('*/_annotations.coco.json')):
        split = split_name(file.parent.name)
        if split:
            found.setdefault(split, []).append(file)
    if not found and len(files) == 1:
        return {ALL: files[0]}
    chosen = {}
    for split, candidates in found.items():
        # COCO's own folder also has the captions and key points of each split.
        instances = [file for file in candidates if file.stem.startswith('instances')]
        candidates = instances or candidates
        if len(candidates) > 1:
            names = ', '.join(str(file.relative_to(folder)) for file in candidates)
            raise UsageError(
                f'{folder} has more than one annotation file for {split} ({names}); name the one '
                f'to use with --{"train" if split == "train" else "val"}-ann'
            )
        chosen[split] = candidates[0]
    return chosen


def find_image_folder(content: dict[str, Any], file: Path, root: Path) -> Path:
    """Return the folder below ``root`` that has the images of a COCO file.

    Args:
        content (dict): What the file holds.
        file (Path): The file.
        root (Path): Folder of the dataset.

    Raises:
        ValueError: If no folder has any of the first images.
    """
    names = [image['file_name'] for image in content['images'][:_TRIED]]
    split = _split_in(file.stem)
    usual = [file.parent, root / 'images', root]
    if split:
        usual[:0] = [root / 'images' / split, root / split]
    best, found = usual[0], -1
    for folder in itertools.chain(usual, filter(Path.is_dir, root.glob('*')), root.glob('*/*/')):
        count = sum((folder / name).is_file() for name in names)
        if count > found:
            best, found = folder, count
        if found == len(names):
            return best
    if not found:
        raise UsageError(
            f'{file} names images such as {names[0]}, and no folder in {root} has them; name '
            'their folder with --train-img or --val-img'
        )
    return best


def _split_in(name: str) -> Optional[str]:
    """Return the split that a file's name tells of, such as instances_train2017."""
    return next((word for word in ('train', 'val', 'test') if word in name.lower()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} can't be read as JSON ({error})") from error
    parts = content if isinstance(content, dict) else {}
    missing = [part for part in _FIELDS if not isinstance(parts.get(part), list)]
    if missing:
        has = ', '.join(map(str, list(parts)[:8])) or type(content).__name__
        raise UsageError(
            f'{file} is JSON, but not COCO: it has no list of {" and ".join(missing)} '
            f'(it has: {has}); known are COCO JSON, YOLO txt and VOC XML'
        )
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
    return content


def _classes(content: dict[str, Any], file: Path) -> list[str]:
    names = [category['name'] for category in content['categories']]
    check_class_names(names, f'the categories of {file}')
    boxed = {annotation['category_id'] for annotation in content['annotations']}
    # Roboflow's first category is the name of the project, above all others and without boxes.
    above = {
        category.get('supercategory')
        for category in content['categories']
        if category.get('supercategory') != category['name']
    }
    classes = [
        category['name']
        for category in content['categories']
        if category['id'] in boxed or category['name'] not in above
    ]
    return classes or names


def _with_classes(
    content: dict[str, Any], classes: list[str]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the annotations with these classes alone, in this order, and what was dropped."""
    ids = {category['name']: category['id'] for category in content['categories']}
    names = {category['id']: category['name'] for category in content['categories']}
    free = max((number for number in names if isinstance(number, int)), default=-1) + 1
    categories = []
    for name in classes:
        if name not in ids:
            ids[name], free = free, free + 1
        categories.append(dict(id=ids[name], name=name))
    files = {image['id']: image['file_name'] for image in content['images']}
    kept, dropped = [], {}
    for annotation in content['annotations']:
        name = names.get(annotation['category_id'])
        where = f'{files.get(annotation["image_id"])}, id {annotation.get("id")}'
        if name not in classes:
            dropped.setdefault(OTHER_CLASSES, []).append(f'{where}: {name}')
        elif annotation['image_id'] not in files:
            dropped.setdefault('boxes of no image', []).append(where)
        else:
            kept.append(annotation)
    return {**content, 'categories': categories, 'annotations': kept}, dropped
