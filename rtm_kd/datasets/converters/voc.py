import math
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from rtm_kd.utils.errors import UsageError

from .base import (
    ALL,
    Annotations,
    Converted,
    files_with,
    read_text,
    relative_name,
    split_name,
    with_progress,
)
from .coco_writer import CocoWriter, check_class_names
from .image_size import EXTENSIONS, image_size

_IMAGE_FOLDERS = ('JPEGImages', 'images', 'Images')


class VocAnnotations(Annotations):
    """Pascal VOC's XML: a file for each image.

    Pixels are counted from 1, and the last one belongs to the box. A difficult object
    becomes COCO's crowd: it is neither trained on nor counted, as in VOC.

    Args:
        path (Path): A list of ``ImageSets/Main``, or a folder: the dataset's, or one with
            XML files.
        root (Path): Folder of the dataset.
        images (Path, optional): Folder of the images, where it is not found by name.

    Raises:
        ValueError: If no object has a name, or a list names no annotation.
    """

    format = 'VOC'

    def __init__(self, path: Path, root: Path, images: Optional[Path] = None) -> None:
        self.path, self.root, self._images = path, root, images
        self._splits = _splits(path, root)
        self.splits = list(self._splits)
        files = [file for listed in self._splits.values() for file in listed]
        self._read = {file: _parse(file) for file in with_progress(files)}
        names = {
            _text(entry, 'name')
            for tree in self._read.values()
            if tree is not None
            for entry in tree.findall('object')
        }
        self.classes = sorted(name for name in names if name)
        check_class_names(self.classes, f'the names of the objects in {path}')

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        writer = CocoWriter(classes or self.classes)
        for file in with_progress(self._splits[split]):
            where = relative_name(file, self.root)
            tree = self._read[file]
            if not file.is_file():
                writer.drop('listed images without annotations', where)
                continue
            if tree is None:
                writer.drop("annotation files that can't be read", where)
                continue
            image = self._image(file, tree)
            if image is None:
                writer.drop('images without a file', f'{_text(tree, "filename")} of {where}')
                continue
            try:
                size = image_size(image)
            except OSError:
                writer.drop("images that can't be read", relative_name(image, self.root))
                continue
            noted = [_number(tree, f'size/{side}') for side in ('width', 'height')]
            if all(noted) and tuple(noted) != size:
                # Drawn on another image: one turned by EXIF, or resized since.
                writer.drop(
                    'images of another size than annotated',
                    f'{where}: {noted[0]:g}x{noted[1]:g}, not {size[0]}x{size[1]}',
                )
                continue
            writer.add_image(relative_name(image, self.root), *size)
            for number, entry in enumerate(tree.findall('object'), 1):
                _add(writer, entry, f'{where}, object {number}')
        return Converted(writer.content, self.root, writer.summary())

    def _image(self, file: Path, tree: ElementTree.Element) -> Optional[Path]:
        noted = _text(tree, 'filename').replace('\\', '/').rsplit('/', 1)[-1]
        # Annotations/a/b.xml belongs to JPEGImages/a/b.jpg.
        below = Path(noted).parent
        base = self.root
        for parent in file.parents:
            if parent.name == 'Annotations':
                base, below = parent.parent, file.parent.relative_to(parent)
                break
        folders = [base / name / below for name in _IMAGE_FOLDERS] + [file.parent, base]
        for folder in [self._images] if self._images else folders:
            names = [file.stem + suffix for ext in EXTENSIONS for suffix in (ext, ext.upper())]
            for name in [noted, *names] if noted else names:
                # By its own name first: the noted one is often that of before a renaming.
                if Path(name).stem == file.stem and (folder / name).is_file():
                    return folder / name
            if noted and (folder / noted).is_file():
                return folder / noted
        return None


def is_voc(file: Path) -> bool:
    """Whether a file is an annotation of VOC's format."""
    tree = _parse(file)
    return tree is not None


def _splits(path: Path, root: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {ALL: _files_of_list(path, root)}
    folder = path
    nested = [child for child in sorted(path.glob('*')) if (child / 'Annotations').is_dir()]
    if not (path / 'Annotations').is_dir() and len(nested) == 1:
        folder = nested[0]  # VOCdevkit/VOC2012
    lists = {
        file.stem: file
        for file in sorted(folder.glob('ImageSets/Main/*.txt'))
        if file.stem in ('train', 'val', 'test', 'trainval')
    }
    if 'trainval' in lists:
        whole = lists.pop('trainval')
        if 'train' not in lists:
            lists['train'] = whole
    if lists:
        return {split: _files_of_list(file, folder) for split, file in lists.items()}
    for parent in (folder / 'Annotations', folder):
        splits = {
            split_name(child.name): files_with(child, '.xml')
            for child in sorted(parent.glob('*'))
            if child.is_dir() and split_name(child.name)
        }
        if any(splits.values()):
            return splits
    return {ALL: files_with(folder, '.xml')}


def _files_of_list(file: Path, root: Path) -> list[Path]:
    base = next((parent for parent in file.parents if (parent / 'Annotations').is_dir()), root)
    folder = base / 'Annotations' if (base / 'Annotations').is_dir() else base
    names = []
    for line in read_text(file).splitlines():
        words = line.split()
        # Lists of one class have 1 or -1 after the name.
        if len(words) == 2 and words[1] in ('-1', '0', '1'):
            line = words[0]
        if line.strip():
            names.append(line.strip())
    files = [
        folder / f'{Path(name).with_suffix("") if _suffixed(name) else name}.xml' for name in names
    ]
    if not any(path.is_file() for path in files):
        raise UsageError(
            f'{file} lists {len(files)} names, such as {", ".join(names[:3])}, and {folder} has an '
            '.xml file of none of them'
        )
    return files


def _suffixed(name: str) -> bool:
    return Path(name).suffix.lower() in (*EXTENSIONS, '.xml')


def _parse(file: Path) -> Optional[ElementTree.Element]:
    try:
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return None
    return tree if tree.tag == 'annotation' else None


def _add(writer: CocoWriter, entry: ElementTree.Element, where: str) -> None:
    corners = [_number(entry, f'bndbox/{edge}') for edge in ('xmin', 'ymin', 'xmax', 'ymax')]
    name = _text(entry, 'name')
    if not name or None in corners:
        writer.drop('objects without a name or a box', where)
        return
    left, top, right, bottom = corners
    if right <= left or bottom <= top:
        # By the format a pixel wide; in practice a click that was no drag.
        right, bottom = left - 1, top - 1
    writer.add_box(
        name,
        (left - 1, top - 1, right, bottom),
        where,
        difficult=bool(_number(entry, 'difficult')),
    )


def _text(entry: ElementTree.Element, path: str) -> str:
    return (entry.findtext(path) or '').strip()


def _number(entry: ElementTree.Element, path: str) -> Optional[float]:
    try:
        number = float(_text(entry, path))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
