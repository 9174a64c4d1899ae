"""COCO JSON: the files of each split, and the folder of their images."""

import itertools
import math
import os
import unicodedata
from pathlib import Path
from typing import Any, Optional

from rtm_kd.compat.coco_ground_truth import complete_annotations
from rtm_kd.datasets.coco_format import (
    FIELDS,
    faults_text,
    find_faults,
    missing_lists,
    read_annotations,
)
from rtm_kd.utils.errors import UsageError

from . import files
from .base import ALL, OTHER_CLASSES, Annotations, Converted, check_class_names
from .other_formats import name_other_format

# Image names of a file that are looked for in each folder, from its beginning to its end.
_TRIED = 20
_DEPTH = 3  # of an annotation file: two folders, and its name


class CocoAnnotations(Annotations):
    """COCO's JSON, which stays unchanged where possible.

    The path is a file, or a folder with a file for each split, in it or up to two folders below:
    ``annotations/instances_train2017.json``, ``train/_annotations.coco.json``.
    """

    format = 'COCO'

    def _read(self) -> None:
        self.splits = {ALL: self.path} if self.path.is_file() else coco_files(self.path)
        # A file for testing, without annotations, is not read unless it is asked for.
        self._contents: dict[str, tuple[dict, bool]] = {}
        self._listed: dict[Path, dict[str, str]] = {}
        content, _ = self._content(self.split_for('train') or next(iter(self.splits)))
        categories = content['categories']
        boxed = {annotation['category_id'] for annotation in content['annotations']}
        # Roboflow's first category is the name of the project, above all others and without boxes.
        above = [c.get('supercategory') for c in categories if c.get('supercategory') != c['name']]
        self.classes = [c['name'] for c in categories if c['id'] in boxed or c['name'] not in above]

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        classes = classes or self.classes
        content, completed = self._content(split)
        folder, by_ends = self._find_images(split, [i['file_name'] for i in content['images']])
        converted = Converted(content, folder)
        images, taken = [], {image['file_name'] for image in content['images']}
        for image in files.with_progress(content['images']):
            name = self._name_in(folder, image['file_name'], by_ends) or image['file_name']
            if name != image['file_name'] and name in taken:
                where = f'{image["file_name"]}, as {name}'
                converted.dropped['images whose file another has as well'].append(where)
                continue
            taken.add(name)
            annotated = image.get('width'), image.get('height')
            size = converted.size_of(folder / name, name, annotated)
            if size is not None:
                images.append({**image, 'file_name': name, 'width': size[0], 'height': size[1]})
        # MMYOLO's own tools number the classes in the order of the file.
        known = [c['name'] for c in content['categories'] if c['name'] in classes]
        if not completed and images == content['images'] and known == classes:
            converted.file = self.splits[split]
        converted.content = _with_classes(content, images, classes, converted)
        return converted

    def _content(self, split: str) -> tuple[dict[str, Any], bool]:
        """Return what a file holds, and whether it had to be completed."""
        if split not in self._contents:
            file = self.splits[split]
            content = read_annotations(str(file))
            missing = missing_lists(content)
            if missing:
                has = ', '.join(map(str, list(content)[:8])) if isinstance(content, dict) else ''
                other = name_other_format(file)
                raise UsageError(
                    f'{file} is JSON, but not COCO: it has no list of {" and ".join(missing)} '
                    f'(it has: {has or type(content).__name__}); '
                    + (f'it is {other}' if other else 'known are COCO JSON, YOLO txt and VOC XML')
                )
            completed = complete_annotations(content)
            faults = find_faults(content, unchecked=('width', 'height', 'iscrowd'))
            if faults:
                raise UsageError(f'{file} has {faults_text(faults)}; correct it or export it again')
            check_class_names(
                [c['name'] for c in content['categories']], f'the categories of {file}'
            )
            for annotation in content['annotations']:
                area = annotation['bbox'][2] * annotation['bbox'][3]
                # Some tools write 0, and MMDetection leaves such boxes out.
                if annotation['area'] == 0 < area:
                    annotation['area'], completed = area, True
            self._contents[split] = content, completed
        return self._contents[split]

    def _find_images(self, split: str, names: list[str]) -> tuple[Path, bool]:
        """Return the folder that has the images, and whether only the ends of their names fit."""

        tried = names[:: math.ceil(len(names) / _TRIED) or 1]

        def count(place: tuple[bool, Path]) -> int:
            return sum(self._name_in(place[1], name, place[0]) is not None for name in tried)

        file = self.splits[split]
        folders = [self.images] if self.images else _folders(file, self.root)
        by_ends, folder = best = max(itertools.product((False, True), folders), key=count)
        if names and not count(best):
            looked = self.images or f'any folder of {self.root}'
            raise UsageError(
                f'{file} names images such as {names[0]}, and none of them is in {looked}; name '
                'their folder with --train-img or --val-img'
            )
        return folder, by_ends

    def _name_in(self, folder: Path, name: str, by_ends: bool) -> Optional[str]:
        """Return the name of an image's file as a folder has it, None if it has none."""
        for end in files.path_ends(name) if by_ends else [name]:
            if os.path.isfile(folder / end):
                return end
            # macOS decomposes letters, and the tools of Windows ignore the case.
            above, last = os.path.split(end)
            found = self._names_on_disk(folder / above).get(_without_spelling(last))
            if found:
                return os.path.join(above, found)
        return None

    def _names_on_disk(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):
                names = []
            self._listed[folder] = {_without_spelling(name): name for name in names}
        return self._listed[folder]


def coco_files(folder: Path) -> dict[str, Path]:
    """Return the annotation files of a dataset's folder by split.

    Raises:
        ValueError: If a split has more than one.
    """
    found: dict[str, list[Path]] = {}
    for file in files.below(folder, '.json'):
        if len(file.relative_to(folder).parts) <= _DEPTH and _looks_like_coco(file):
            split = files.split_in(file.stem) or files.split_of_parents(file, folder) or ALL
            found.setdefault(split, []).append(file)
    if 'train' in found:
        found.pop(ALL, None)
    return {split: _the_one(named, split, folder) for split, named in found.items()}


def _the_one(found: list[Path], split: str, folder: Path) -> Path:
    # COCO's own folder also has the captions and key points of each split.
    found = [file for file in found if file.stem.startswith('instances')] or found
    depth = min(len(file.parts) for file in found)
    found = [file for file in found if len(file.parts) == depth]
    if len(found) > 1:
        names = ', '.join(str(file.relative_to(folder)) for file in found)
        of = '' if split == ALL else f' for {split}'
        option = '--val-ann' if split in ('val', 'test') else '--train-ann'
        raise UsageError(
            f'{folder} has more than one annotation file{of} ({names}); name the one to use with '
            f'{option}'
        )
    return found[0]


def _looks_like_coco(file: Path) -> bool:
    """Whether a JSON file has most of COCO's lists: a damaged one should be reported as such."""
    try:
        text = file.read_bytes().replace(b'\0', b'')  # of UTF-16
    except OSError:
        return False
    return sum(f'"{part}"'.encode() in text for part in FIELDS) > 1


def _folders(file: Path, root: Path) -> list[Path]:
    """Return the folders to look for a file's images in, those of its split first."""
    found = [file.parent, root / 'images', root]
    for place in (file.parent, file.parent.parent, root):
        if place == root or root in place.parents:
            found += [child for child in sorted(place.glob('*')) if child.is_dir()]
    found += sorted(child for child in root.glob('*/*/') if child.is_dir())
    split = files.split_in(file.stem) or files.split_name(file.parent.name)

    def is_of_another(folder: Path) -> bool:
        parts = files.relative_name(folder, root).split('/')[::-1]
        return split != next(filter(None, map(files.split_in, parts)), None)

    return sorted(found, key=is_of_another) if split else found


def _without_spelling(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def _with_classes(
    content: dict[str, Any], images: list[dict], classes: list[str], converted: Converted
) -> dict[str, Any]:
    """Return the annotations of these images, with only these classes and in this order."""
    ids = {category['name']: category['id'] for category in content['categories']}
    names = {number: name for name, number in ids.items()}
    free = max((number for number in names if isinstance(number, int)), default=-1) + 1
    for name in classes:
        ids.setdefault(name, free + len(ids))
    names_of = {image['id']: image['file_name'] for image in content['images']}
    used = {image['id'] for image in images}
    kept = []
    for annotation in content['annotations']:
        name, image_id = names.get(annotation['category_id']), annotation['image_id']
        where = f'{names_of.get(image_id)}, id {annotation["id"]}'
        if name not in classes:
            converted.dropped[OTHER_CLASSES].append(f'{where}: {name}')
        elif image_id not in names_of:
            converted.dropped['boxes of no image'].append(where)
        elif image_id in used:
            kept.append(annotation)
    categories = [dict(id=ids[name], name=name) for name in classes]
    return {**content, 'images': images, 'categories': categories, 'annotations': kept}
