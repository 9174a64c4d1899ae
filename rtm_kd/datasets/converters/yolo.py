"""YOLO txt: data.yaml, class names, lists of images, and the labels of each image."""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import yaml

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import EXTENSIONS

from . import files
from .base import ALL, OTHER_FORMAT, Annotations, CocoWriter, Converted, check_class_names

#: Files with one class name a line, as the tools that write YOLO's labels call them.
NAME_FILES = ('classes.txt', 'obj.names', '_darknet.labels')
_YAML = ('.yaml', '.yml')
_BOX = 5  # numbers of a line: label, centre x and y, width, height
_NOT_IMAGES = ('.txt', '.json', '.xml', '.npy', '.cache')


class YoloAnnotations(Annotations):
    """YOLO's txt: a file for each image, a line for each box.

    A line is the label and centre, width and height as fractions of the image's size, or the
    label and a polygon, which becomes its bounding box. The path is ``data.yaml``, a text file
    with a path of an image in each line, or a folder: the dataset's, or that of a split's
    images or labels.
    """

    format = 'YOLO'

    def _read(self) -> None:
        self._file = self._find_yaml()
        self._description = _read_yaml(self._file) if self._file else {}
        self._names = self._find_names() or dict(enumerate(self.names or ()))
        if not self._names:
            raise UsageError(
                f'the labels of {self.path} are numbers, and no file gives them names; put a '
                'data.yaml or classes.txt (one name a line) beside them, or give --classes'
            )
        self.classes = [self._names[label] for label in sorted(self._names)]
        check_class_names(self.classes, f'the classes of {self._file or self.path}')
        self.splits = self._find_splits()
        if not any(self.splits.values()):
            no_image = f'{self.path} has labels, but no image to them ({", ".join(EXTENSIONS)})'
            raise UsageError(next(iter(self.missing.values()), no_image))

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        writer = CocoWriter(classes or self.classes, self.root)
        used, labels, seen = set(), set(), set()
        for image in files.with_progress(self.splits[split]):
            name = files.relative_name(image, self.root)
            if name in seen:
                writer.dropped['images listed twice'].append(name)
                continue
            seen.add(name)
            label_file = self._label_file(image)
            used |= {label_file} - {None}
            size = writer.size_of(image, name)
            if size is None:
                continue
            writer.add_image(name, *size)
            if label_file is None:
                # Background, or their labels are not in labels/ for images/.
                writer.noted['without a label file'].append(name)
                continue
            labels_name = files.relative_name(label_file, self.root)
            try:
                lines = files.read_text(label_file).splitlines()
            except UsageError:
                writer.dropped["label files that can't be read"].append(labels_name)
                continue
            for number, line in enumerate(lines, 1):
                if line.strip():
                    labels.add(self._add(writer, line, f'{labels_name}:{number}', size))
        self._check_first_label(split, labels)
        self._drop_labels_without_image(writer, split, used)
        return writer

    def _label_file(self, image: Path) -> Optional[Path]:
        """Return the labels of an image: in labels/ for images/, or beside it."""
        swapped = files.swap_folder(image.parent, 'images', 'labels')
        candidates = [swapped / image.name, image, self.root / 'labels' / image.name]
        if self.images is not None and self.path.is_dir():
            candidates.insert(0, self.path / files.relative_name(image, self.images))
        found = (candidate.with_suffix('.txt') for candidate in candidates)
        return next(filter(os.path.isfile, found), None)

    def _add(
        self, writer: CocoWriter, line: str, where: str, size: tuple[int, int]
    ) -> Optional[float]:
        """Add the box of a line, or count why not, and return its label."""
        numbers = _numbers(line)
        if 'kpt_shape' in self._description:
            numbers = numbers[:_BOX]
        if not (len(numbers) == _BOX or (len(numbers) > 6 and len(numbers) % 2)):
            writer.dropped['lines that are not a box'].append(where)
            return None
        label, *shares = numbers
        if max(map(abs, shares)) > 2:
            writer.dropped['boxes in pixels, not in shares of the image'].append(where)
            return label
        if len(shares) == 4:
            x, y, w, h = shares
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            xs, ys = shares[::2], shares[1::2]
            corners = (min(xs), min(ys), max(xs), max(ys))
        corners = [share * side for share, side in zip(corners, size * 2)]
        writer.add_box(self._names.get(label, f'{label:g}'), corners, where)
        return label

    def _check_first_label(self, split: str, labels: set) -> None:
        """Raise for labels that are counted from 1 where the names are counted from 0."""
        last = len(self._names)
        if 0 in self._names and last not in self._names and last in labels and 0 not in labels:
            numbered = ', '.join(f'{label + 1}: {name}' for label, name in self._names.items())
            raise UsageError(
                f'the labels of {self.path} ({split}) seem to be counted from 1: none is 0, and '
                f'one is {last}, while {last} names have the labels from 0 to {last - 1}. If so, '
                f'write names: {{{numbered}}} into a data.yaml beside them; if not, remove the '
                f'boxes with label {last}'
            )

    def _drop_labels_without_image(self, writer: CocoWriter, split: str, used: set[Path]) -> None:
        """Count label files beside those in use that belong to no image that is read."""
        folders = {image.parent for image in self.splits[split] if os.path.isdir(image.parent)}
        beside = [file for folder in folders for file in folder.iterdir()]
        stems = {file.stem for file in beside if file.suffix.lower() in EXTENSIONS}
        others = {f.stem: f for f in beside if f.suffix.lower() not in _NOT_IMAGES}
        alone = [
            file
            for folder in sorted({file.parent for file in used})
            for file in sorted(folder.glob('*.txt'))
            if not (file.stem in stems or file.name in NAME_FILES or lists_images(file))
        ]
        splits = self.splits.values() if alone else ()
        labelled = {self._label_file(image) for images in splits for image in images}
        for file in alone:
            if file not in labelled:
                what = OTHER_FORMAT if file.stem in others else 'label files without an image'
                name = files.relative_name(others.get(file.stem, file), self.root)
                writer.dropped[what].append(name)

    def _find_yaml(self) -> Optional[Path]:
        """Return the YAML file that describes the dataset, if there is one."""
        if self.path.suffix.lower() in _YAML and self.path.is_file():
            if not _read_yaml(self.path):
                raise UsageError(
                    f'{self.path} has no "names", so it does not describe a YOLO dataset; add '
                    'them, or name another file'
                )
            return self.path
        found = next(filter(None, map(find_yaml, self._upwards())), None)
        listed = any((folder / name).is_file() for folder in self._upwards() for name in NAME_FILES)
        if not found and not listed and self.path.is_dir():
            below = files.below(self.path, *_YAML)  # an export, unzipped into a folder of its own
            found = _the_yaml([file for file in below if file.stem == 'data'], self.path)
        return found

    def _upwards(self) -> list[Path]:
        """Return the folder of the path, and those above it up to the dataset's."""
        folder = self.path if self.path.is_dir() else self.path.parent
        above = [each for each in folder.parents if self.root in each.parents]
        return [folder, *above, *([] if folder == self.root else [self.root])]

    def _find_names(self) -> dict[int, str]:
        """Return the names of the labels, from the YAML file or from lists of names."""
        names = self._description.get('names')
        if not names or names in ('null', '~'):
            return dict(enumerate(self._listed_names()))
        if isinstance(names, str):
            beside = self._file.parent / names
            names = files.read_lines(beside) if os.path.isfile(beside) else names.split(',')
        try:
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            named = {int(label): name.strip() for label, name in pairs}
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(
                f'the "names" of {self._file} are neither a list of names nor label: name; write '
                'names: [a, b]'
            ) from error
        if len(named) < len(names):
            raise UsageError(
                f'the "names" of {self._file} have two names for one label; renumber them'
            )
        count = self._description.get('nc', str(len(named)))
        if count != str(len(named)):
            raise UsageError(
                f'{self._file} says nc: {count} and has {len(named)} names; make them agree'
            )
        return named

    def _listed_names(self) -> list[str]:
        """Return the names in a file with one a line: beside or above the labels, or among them."""
        for folder in self._upwards():
            for name_file in NAME_FILES:
                if (folder / name_file).is_file():
                    return files.read_lines(folder / name_file)
        found = [f for f in files.below(self.root, *NAME_FILES) if f.name in NAME_FILES]
        lists = [files.read_lines(file) for file in found]
        # labelImg leaves one in each folder, and appends to it as it meets more classes.
        longest = max(lists, key=len, default=[])
        if any(names != longest[: len(names)] for names in lists):
            named = ', '.join(files.relative_name(file, self.root) for file in found)
            raise UsageError(
                f'{self.root} has lists of the classes that differ ({named}); put a data.yaml with '
                'the right "names" into it'
            )
        return longest

    def _find_splits(self) -> dict[str, list[Path]]:
        if self._file is None or self.path not in (self._file, *self._file.parents):
            if self.path.is_file():
                return {ALL: _paths_in(self.path, self.images or self.root)}
            return _splits_of_folder(self.path, self.images)
        named = {}
        for key, entry in self._description.items():
            split = files.split_name(key)
            if split and entry not in ('', 'null', '~'):
                try:
                    named[split] = self._images_named(entry)
                except UsageError as error:
                    self.missing[split] = str(error)  # it may not be needed
        if named and self.images is not None:
            raise UsageError(
                f'{self._file} names the images of {" and ".join(named)}; correct it there, or '
                'leave out --train-img and --val-img'
            )
        return named or _splits_of_folder(self._file.parent, self.images)

    def _images_named(self, entry: Any) -> list[Path]:
        """Return the images that an entry of the YAML file names: folders, or lists of paths."""
        images = []
        base = self._file.parent / self._description.get('path', '')
        for name in entry if isinstance(entry, list) else [entry]:
            # Roboflow writes ../train/images for train/images, and others a path of their machine.
            # Its last folder alone, images, could be that of any split.
            ends = files.path_ends(name)
            ends = [name, *ends[:1], *ends[1:-1]]
            candidates = [folder / end for end in ends for folder in (base, self._file.parent)]
            found = next(filter(os.path.exists, candidates), None)
            if found is None:
                raise UsageError(
                    f'{self._file} names {name}, and there is no {candidates[0]}; write the path '
                    'relative to the file, or set its "path"'
                )
            images += _paths_in(found, base) if found.is_file() else _images_in(found)
        return images


def yolo_labels_below(folder: Path) -> Iterator[Path]:
    """Return the text files below a folder whose first line looks like a box."""
    for file in files.below(folder, '.txt'):
        if file.name not in NAME_FILES and len(_numbers(next(iter(_lines(file)), ''))) >= _BOX:
            yield file


def lists_images(file: Path) -> bool:
    """Whether a text file has the path of an image in each line."""
    lines = _lines(file)
    return bool(lines) and all(line.lower().endswith(EXTENSIONS) for line in lines)


def _lines(file: Path) -> list[str]:
    try:
        return files.read_lines(file)
    except UsageError:
        return []


def _numbers(line: str) -> list[float]:
    """Return the numbers of a line, none if anything else is in it."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def find_yaml(folder: Path) -> Optional[Path]:
    """Return a folder's ``data.yaml``, or its only YAML file that describes a dataset."""
    found = sorted(file for suffix in _YAML for file in folder.glob(f'*{suffix}'))
    named_data = _the_yaml([file for file in found if file.stem == 'data'], folder)
    return named_data or _the_yaml(found, folder)


def _the_yaml(candidates: list[Path], folder: Path) -> Optional[Path]:
    """Return the one file that has names, None if none has; raise if several have."""
    found = []
    for file in candidates:
        try:
            if _read_yaml(file):
                found.append(file)
        except UsageError:
            if file.stem == 'data':
                raise  # another file may be unrelated
    if len(found) > 1:
        names = ', '.join(files.relative_name(file, folder) for file in found)
        raise UsageError(
            f'{folder} has more than one YAML file with "names" ({names}); name the one to use '
            'with --train-ann'
        )
    return next(iter(found), None)


class _Loader(yaml.BaseLoader):
    """Reads every value as text: a class may be called no, 007 or 2020-01-01."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            ((twice, _),) = Counter(key.value for key, _ in node.value).most_common(1)
            raise yaml.YAMLError(f'the key {twice} is there twice')
        return mapping


def _read_yaml(file: Path) -> dict:
    try:
        content = yaml.load(files.read_text(file), Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f"{file} can't be read as YAML ({reason}); correct it there") from error
    if not isinstance(content, dict) or 'names' not in content:
        return {}
    for key, entry in content.items():
        is_split = files.split_name(key) is not None
        texts = entry if is_split and isinstance(entry, list) else [entry]
        is_text = all(isinstance(text, str) for text in texts)
        # Aliases of aliases can be lists of billions: what is not text is never printed.
        if (is_split or key in ('nc', 'path')) and not is_text:
            raise UsageError(
                f'the "{key}" of {file} is not text; write a number after nc, a folder after path, '
                'and after a split the folder of its images, or a list of these'
            )
    return content


def _images_in(folder: Path) -> list[Path]:
    """Return the images of a split's folder, or of its folder of images or labels."""
    places = [files.child(folder, 'images'), files.swap_folder(folder, 'labels', 'images')]
    return files.images_below(next(filter(Path.is_dir, places), folder))


def _paths_in(file: Path, root: Path) -> list[Path]:
    """Return the images that a list names; it may be of another machine, or another folder."""
    found = []
    for line in files.read_lines(file):
        ends = [line.replace('\\', '/'), *files.path_ends(line)]
        places = [folder / end for end in ends for folder in (file.parent, root, root / 'images')]
        found.append(next(filter(os.path.isfile, places), places[0]))
    return found


def _splits_of_folder(folder: Path, images: Optional[Path]) -> dict[str, list[Path]]:
    if images is not None:
        return {ALL: files.images_below(images)}
    lists = {
        files.split_name(file.stem): _paths_in(file, folder)
        for file in sorted(folder.glob('*.txt'), reverse=True)  # train before trainval
        if files.split_name(file.stem) and lists_images(file)
    }
    if lists:
        return lists
    for parent in (files.child(folder, 'images'), folder):  # images/train or train/images
        folders = defaultdict(list)  # by their names without a year: train2017
        for child in sorted(filter(Path.is_dir, parent.glob('*')), reverse=True):
            folders[re.sub(r'\d{4}$', '', child.name)].append(child)
        splits = {
            files.split_name(name): _images_of_one(years)
            for name, years in folders.items()
            if files.split_name(name)
        }
        if any(splits.values()):
            return splits
    return {ALL: _images_in(folder)}


def _images_of_one(folders: list[Path]) -> list[Path]:
    """Return the images of a split's only folder; those of two years may have some in common."""
    if len(folders) > 1:
        names = ', '.join(sorted(folder.name for folder in folders))
        raise UsageError(
            f'{folders[0].parent} has several folders for one split ({names}); name the one to use '
            'with --train-ann and --val-ann'
        )
    return _images_in(folders[0])
