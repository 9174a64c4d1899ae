import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import yaml

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import EXTENSIONS, image_size

from .base import (
    ALL,
    Annotations,
    Converted,
    files_with,
    images_below,
    path_ends,
    read_text,
    relative_name,
    split_name,
    with_progress,
)
from .coco_writer import (
    NO_FILE,
    OTHER_FORMAT,
    UNREADABLE,
    CocoWriter,
    check_class_names,
    first_few,
)

#: Files with a class name a line, as the tools that write YOLO's labels call them.
NAME_FILES = ('classes.txt', 'obj.names', '_darknet.labels')
_YAML = ('.yaml', '.yml')
_BOX = 5  # numbers of a line: label, centre x and y, width, height


class YoloAnnotations(Annotations):
    """YOLO's txt: a file for each image, a line for each box.

    A line is the label and centre, width and height as shares of the image's, or the label
    and a polygon, of which the bounding box is taken.

    Args:
        path (Path): ``data.yaml``; a text file with a path of an image in each line; or a
            folder, of a dataset or of a split's images or labels.
        root (Path): Folder of the dataset.
        images (Path, optional): Folder of the images, where it is not found by the labels'.
        names (list[str], optional): The classes, where no file names them.

    Raises:
        ValueError: If the classes have no names, or two of them the same, or there is no image.
    """

    format = 'YOLO'

    def __init__(
        self,
        path: Path,
        root: Path,
        images: Optional[Path] = None,
        names: Optional[list[str]] = None,
    ) -> None:
        self.path, self.root, self._images = path, root, images
        description, file = _description(path, root)
        self._names = _names(description, file, path, root)
        if not self._names:
            if not names:
                raise UsageError(
                    f'the labels of {path} are numbers, and no file gives them names; put a '
                    'data.yaml or classes.txt (one name a line) beside them, or give --classes'
                )
            self._names = dict(enumerate(names))
        self.classes = [self._names[label] for label in sorted(self._names)]
        check_class_names(self.classes, f'the classes of {file or path}')
        self._keypoints = 'kpt_shape' in description
        self.missing = {}
        self._splits = self._find_splits(description, file)
        self.splits = list(self._splits)
        if not any(self._splits.values()):
            for why in self.missing.values():
                raise UsageError(why)
            raise UsageError(f'{path} has labels, but no image ({", ".join(EXTENSIONS)}) to them')

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        writer = CocoWriter(classes or self.classes)
        used, unlabelled = set(), []
        self._labels_seen: set[float] = set()
        for image in with_progress(self._splits[split]):
            label_file = _label_file(image, self.root, self.path, self._images)
            name = relative_name(image, self.root)
            if label_file is not None:
                used.add(label_file)
            if not os.path.isfile(image):
                writer.drop(NO_FILE, name)
                continue
            try:
                size = image_size(image)
            except OSError:
                writer.drop(UNREADABLE, name)
                continue
            writer.add_image(name, *size)
            if label_file is None:
                unlabelled.append(name)
            for where, line in _lines(label_file, writer, self.root):
                self._add(writer, line, where, size)
        self._check_first_label(split)
        for file, image in self._labels_without_image(split, used):
            if image is None:
                writer.drop('label files without an image', relative_name(file, self.root))
            else:
                writer.drop(OTHER_FORMAT, relative_name(image, self.root))
        # Background, or in another folder than labels/ for images/.
        notes = [f'without a label file: {first_few(unlabelled)}'] if unlabelled else []
        return Converted(writer.content, self.root, writer.dropped, notes)

    def _check_first_label(self, split: str) -> None:
        """Raise for labels that are counted from 1 where the names are counted from 0."""
        seen, last = self._labels_seen, len(self._names)
        if 0 in self._names and last not in self._names and last in seen and 0 not in seen:
            numbered = ', '.join(f'{label + 1}: {name}' for label, name in self._names.items())
            raise UsageError(
                f'the labels of {self.path} ({split}) seem to be counted from 1: none is 0, and '
                f'one is {last}, while {last} names have the labels from 0 to {last - 1}. If so, '
                f'say it in a data.yaml beside them, names: {{{numbered}}}; if not, take out the '
                f'boxes with label {last}'
            )

    def _labels_without_image(
        self, split: str, used: set[Path]
    ) -> Iterator[tuple[Path, Optional[Path]]]:
        """Yield label files that belong to no image, and what is called like one."""
        folders = {image.parent for image in self._splits[split] if os.path.isdir(image.parent)}
        files = [file for folder in folders for file in folder.iterdir() if file.suffix != '.txt']
        stems = {file.stem for file in files if file.suffix.lower() in EXTENSIONS}
        others = {file.stem: file for file in files if _may_be_image(file)}
        for folder in sorted({file.parent for file in used}):
            for file in sorted(folder.glob('*.txt')):
                if (
                    file.stem not in stems
                    and file.name not in NAME_FILES
                    and not lists_images(file)
                ):
                    yield file, others.get(file.stem)

    def _add(self, writer: CocoWriter, line: str, where: str, size: tuple[int, int]) -> None:
        numbers = _numbers(line)
        if numbers is not None and self._keypoints:
            numbers = numbers[:_BOX]
        if numbers is None or not (len(numbers) == _BOX or (len(numbers) > 6 and len(numbers) % 2)):
            writer.drop('lines that are no box', where)
            return
        label, *shares = numbers
        self._labels_seen.add(label)
        if max(map(abs, shares)) > 2:
            writer.drop('boxes in pixels, not in shares of the image', where)
            return
        name = self._names.get(int(label), f'{label:g}') if label == int(label) else f'{label:g}'
        width, height = size
        if len(shares) == 4:
            x, y, w, h = shares
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            corners = (min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2]))
        left, top, right, bottom = corners
        writer.add_box(name, (left * width, top * height, right * width, bottom * height), where)

    def _find_splits(self, description: dict, file: Optional[Path]) -> dict[str, list[Path]]:
        if file is not None and self.path in (file, file.parent):
            named = {}
            for key, entry in description.items():
                split = split_name(key)
                if split and entry not in (None, '', 'null', '~'):
                    try:
                        named[split] = _listed(entry, file, description)
                    except UsageError as error:
                        self.missing[split] = str(error)  # it need not be asked for
            return named or _splits_of_folder(file.parent, self._images)
        if self.path.is_file():
            return {ALL: _paths_in(self.path, self.root)}
        return _splits_of_folder(self.path, self._images)


def yolo_labels_below(folder: Path) -> Iterator[Path]:
    """Return the text files below a folder of which the first line looks like a box's."""
    for file in files_with(folder, '.txt'):
        if file.name in NAME_FILES:
            continue
        try:
            lines = read_text(file).splitlines()
        except UsageError:
            continue
        numbers = _numbers(next((line for line in lines if line.strip()), ''))
        if numbers is not None and len(numbers) >= _BOX:
            yield file


def lists_images(file: Path) -> bool:
    """Whether a text file has the path of an image in each line."""
    try:
        lines = read_text(file).splitlines()
    except UsageError:
        return False
    lines = [line.strip().lower() for line in lines if line.strip()]
    return bool(lines) and all(line.endswith(EXTENSIONS) for line in lines)


def _may_be_image(file: Path) -> bool:
    return file.suffix.lower() not in ('.txt', '.json', '.xml', '.npy', '.cache')


def find_yaml(folder: Path) -> Optional[Path]:
    """Return a folder's description of a YOLO dataset: ``data.yaml`` or the only one."""
    files = [file for suffix in _YAML for file in sorted(folder.glob(f'*{suffix}'))]
    for file in sorted(files, key=lambda file: (file.stem != 'data', file.name)):
        try:
            if _read_yaml(file):
                return file
        except UsageError:
            if file.stem == 'data':
                raise  # another one has nothing to do with it, perhaps
    return None


def _description(path: Path, root: Path) -> tuple[dict, Optional[Path]]:
    if path.suffix.lower() in _YAML and path.is_file():
        description = _read_yaml(path)
        if not description:
            raise UsageError(f'{path} has no "names", so it does not describe a YOLO dataset')
        return description, path
    for folder in _upwards(path, root):
        file = find_yaml(folder)
        if file is not None:
            return _read_yaml(file), file
    return {}, None


def _upwards(path: Path, root: Path) -> Iterator[Path]:
    """The folder of a path, and those above it up to the dataset's."""
    folder = path if path.is_dir() else path.parent
    yield folder
    if root in folder.parents:
        yield from folder.parents[: folder.parents.index(root) + 1]
    elif folder != root:
        yield root


class _Loader(yaml.BaseLoader):
    """Reads nothing but texts: a class may be called no, 007 or 2020-01-01."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            ((twice, _),) = Counter(key.value for key, _ in node.value).most_common(1)
            raise yaml.YAMLError(f'the key {twice} is there twice')
        return mapping


def _read_yaml(file: Path) -> dict:
    try:
        content = yaml.load(read_text(file), Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"{file} can't be read as YAML ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(content, dict) or 'names' not in content:
        return {}
    for key, entry in content.items():
        # Aliases of aliases can be lists of billions: what is no text is never written out.
        if key in ('nc', 'path') and not isinstance(entry, str):
            raise UsageError(f'the "{key}" of {file} is a list or has keys; write one value')
        texts = entry if isinstance(entry, list) else [entry]
        if split_name(key) and not all(isinstance(text, str) for text in texts):
            raise UsageError(
                f'the "{key}" of {file} is neither a path nor a list of paths; write the '
                "folder of the split's images"
            )
    return content


def _names(description: dict, file: Optional[Path], path: Path, root: Path) -> dict[int, str]:
    names = description.get('names')
    if not names or names in ('null', '~'):
        return _names_of_files(path, root)
    if isinstance(names, str):
        beside = file.parent / names
        names = _lines_of(beside) if os.path.isfile(beside) else names.split(',')
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        named = {int(label): name.strip() for label, name in pairs}
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f'the "names" of {file} are no list and no label: name') from error
    if len(named) < len(names):
        raise UsageError(f'the "names" of {file} have two names for one label; number them anew')
    count = description.get('nc', str(len(named)))
    if count != str(len(named)):
        raise UsageError(f'{file} says nc: {count} and has {len(named)} names; make them agree')
    return named


def _names_of_files(path: Path, root: Path) -> dict[int, str]:
    """Return what a file with a name a line says: beside or above the labels, or among them."""
    for folder in _upwards(path, root):
        for name_file in NAME_FILES:
            if (folder / name_file).is_file():
                return dict(enumerate(_lines_of(folder / name_file)))
    files = [file for file in files_with(root, *NAME_FILES) if file.name in NAME_FILES]
    # labelImg leaves one in each folder, and adds to it as it meets more classes.
    lists = sorted((_lines_of(file) for file in files), key=len)
    for file in files:
        if _lines_of(file) != lists[-1][: len(_lines_of(file))]:
            named = ', '.join(relative_name(file, root) for file in files)
            raise UsageError(
                f'{root} has lists of the classes that differ ({named}); put a data.yaml with the '
                'right "names" into it'
            )
    return dict(enumerate(lists[-1])) if lists else {}


def _lines_of(file: Path) -> list[str]:
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _listed(entry: Any, file: Path, description: dict) -> list[Path]:
    """Return the images that an entry of data.yaml stands for: folders, or lists of paths."""
    images = []
    base = file.parent / description.get('path', '')
    for name in entry if isinstance(entry, list) else [entry]:
        # Roboflow writes ../train/images for train/images, and others where it was with them;
        # of which images alone may be those of any split.
        ends = path_ends(name)
        ends = [end for end in ends if end == ends[0] or '/' in end]
        candidates = [folder / end for end in (name, *ends) for folder in (base, file.parent)]
        found = next((path for path in candidates if os.path.exists(path)), None)
        if found is None:
            raise UsageError(
                f'{file} names {name}, and there is no {candidates[0]}; write the path relative to '
                'the file, or set its "path"'
            )
        images += _paths_in(found, base) if found.is_file() else images_below(_images_of(found))
    return images


def _images_of(folder: Path) -> Path:
    """Return the images' folder for a folder of a split, of images or of labels."""
    parts = list(folder.parts)
    if 'labels' in parts:
        parts[len(parts) - 1 - parts[::-1].index('labels')] = 'images'
        if Path(*parts).is_dir():
            return Path(*parts)
    return folder / 'images' if (folder / 'images').is_dir() else folder


def _paths_in(file: Path, root: Path) -> list[Path]:
    found = []
    for line in _lines_of(file):
        # Lists begin with the folder that the dataset was in, of this machine or another one.
        ends = [line.replace('\\', '/'), *path_ends(line)]
        places = [folder / end for end in ends for folder in (file.parent, root, root / 'images')]
        found.append(next((place for place in places if os.path.isfile(place)), places[0]))
    return found


def _splits_of_folder(folder: Path, images: Optional[Path]) -> dict[str, list[Path]]:
    if images is not None:
        return {ALL: images_below(images)}
    lists = {
        split_name(file.stem): _paths_in(file, folder)
        for file in sorted(folder.glob('*.txt'))
        if split_name(file.stem) and lists_images(file)
    }
    if lists:
        return lists
    # images/train or train/images
    for parent in (folder / 'images', folder):
        splits = {
            split_name(child.name): images_below(_images_of(child))
            for child in sorted(parent.glob('*'))
            if child.is_dir() and split_name(child.name)
        }
        if any(splits.values()):
            return splits
    return {ALL: images_below(_images_of(folder))}


def _label_file(
    image: Path, root: Path, path: Path, images: Optional[Path] = None
) -> Optional[Path]:
    """Return the labels of an image: in labels/ for images/, or beside it."""
    candidates = []
    parts = list(image.parts)
    if 'images' in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
        candidates.append(Path(*parts))
    candidates += [image, root / 'labels' / image.name]
    if images is not None and path.is_dir():
        candidates.insert(0, path / relative_name(image, images))
    files = [candidate.with_suffix('.txt') for candidate in candidates]
    return next((file for file in files if os.path.isfile(file)), None)


def _lines(label_file: Optional[Path], writer: CocoWriter, root: Path) -> Iterator[tuple[str, str]]:
    if label_file is None:
        return
    name = relative_name(label_file, root)
    try:
        lines = read_text(label_file).splitlines()
    except UsageError:
        writer.drop("label files that can't be read", name)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f'{name}:{number}', line


def _numbers(line: str) -> Optional[list[float]]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
