import codecs
import math
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import EXTENSIONS, image_size

from .base import (
    ALL,
    Annotations,
    Converted,
    files_with,
    images_below,
    read_text,
    relative_name,
    split_name,
    subfolder,
    with_progress,
)
from .coco_writer import (
    NO_FILE,
    OTHER_SIZE,
    UNREADABLE,
    CocoWriter,
    check_class_names,
    first_few,
)

_ANNOTATIONS = ('annotations', 'annotation', 'xmls', 'xml', 'labels')
_DECLARED = re.compile(rb'^\s*<\?xml[^>]*?encoding\s*=\s*["\']([\w.:-]+)["\'][^>]*\?>')


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
            for tree, _ in self._read.values()
            if tree is not None
            for entry in tree.findall('object')
        }
        self._by_stem = defaultdict(list)
        for image in images_below(images or _base(path, root)):
            self._by_stem[image.stem].append(image)
        self.classes = sorted(name for name in names if name)
        check_class_names(self.classes, f'the names of the objects in {path}')

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        writer = CocoWriter(classes or self.classes)
        swapped: list[str] = []
        for file in with_progress(self._splits[split]):
            where = relative_name(file, self.root)
            tree, fault = self._read[file]
            if not os.path.isfile(file):
                writer.drop('listed images without annotations', where)
                continue
            if tree is None:
                writer.drop(fault, where)
                continue
            image = self._image(file, _text(tree, 'filename'))
            if image is None:
                writer.drop(NO_FILE, f'{_text(tree, "filename")} of {where}')
                continue
            try:
                size = image_size(image)
            except OSError:
                writer.drop(UNREADABLE, relative_name(image, self.root))
                continue
            noted = [_number(tree, f'size/{side}') for side in ('width', 'height')]
            if all(noted) and tuple(noted) != size:
                # Drawn on another image: one turned by EXIF, or resized since.
                writer.drop(
                    OTHER_SIZE,
                    f'{where}: {noted[0]:g}x{noted[1]:g}, not {size[0]}x{size[1]}',
                )
                continue
            writer.add_image(relative_name(image, self.root), *size)
            for number, entry in enumerate(tree.findall('object'), 1):
                _add(writer, entry, f'{where}, object {number}', swapped)
        notes = [f'read with their corners swapped: {first_few(swapped)}'] if swapped else []
        return Converted(writer.content, self.root, writer.dropped, notes)

    def _image(self, file: Path, noted: str) -> Optional[Path]:
        """Return the image of its own name, or of the noted one, that is nearest to a file."""
        noted = noted.replace('\\', '/').rsplit('/', 1)[-1]

        def distance(image: Path) -> tuple:
            shared = os.path.commonpath([file.parent, image.parent])
            # Annotations/a/b.xml belongs to JPEGImages/a/b.jpg.
            return -len(Path(shared).parts), -len({*file.parts} & {*image.parent.parts})

        # By its own name first: the noted one is often that of before a renaming.
        own = sorted(self._by_stem[file.stem], key=lambda image: (image.name != noted, image.name))
        others = [image for image in self._by_stem[Path(noted).stem] if image.name == noted]
        return min(own or others, key=distance, default=None)


def is_voc(file: Path) -> bool:
    """Whether a file is an annotation of VOC's format."""
    return _parse(file)[0] is not None


def annotations_folder(folder: Path) -> Optional[Path]:
    """Return the folder of a dataset's XML files, however it is spelled."""
    found = subfolder(folder, *_ANNOTATIONS)
    return found if found and files_with(found, '.xml') else None


def _base(path: Path, root: Path) -> Path:
    """Return the folder that has annotations and images, wherever the path is in it."""
    return root if path == root or root in path.parents else path if path.is_dir() else path.parent


def _splits(path: Path, root: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {ALL: _files_of_list(path, root)}
    folder = path
    if annotations_folder(path) is None:
        children = [child for child in sorted(path.glob('*')) if child.is_dir()]
        nested = [child for child in children if annotations_folder(child)]
        if len(nested) == 1 and not split_name(nested[0].name):
            folder = nested[0]  # VOCdevkit/VOC2012
        elif len(children) == 1 and not nested:
            return _splits(children[0], root)
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
    files = files_with(folder, '.xml')
    splits = defaultdict(list)
    for file in files:
        parents = file.relative_to(folder).parts[-2::-1]
        splits[next(filter(None, map(split_name, parents)), ALL)].append(file)
    return {ALL: files} if ALL in splits else dict(splits)


def _files_of_list(file: Path, root: Path) -> list[Path]:
    folder = next(filter(None, map(annotations_folder, file.parents)), root)
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
    if not any(map(os.path.isfile, files)):
        raise UsageError(
            f'{file} lists {len(files)} names, such as {", ".join(names[:3])}, and {folder} has an '
            '.xml file of none of them'
        )
    return files


def _suffixed(name: str) -> bool:
    return Path(name).suffix.lower() in (*EXTENSIONS, '.xml')


def _parse(file: Path) -> tuple[Optional[ElementTree.Element], str]:
    """Return an annotation, or None and why not."""
    try:
        content = file.read_bytes()
    except OSError:
        return None, "annotation files that can't be read"
    tree, fault = _tree(content)
    if tree is not None and tree.tag != 'annotation':
        return None, "XML files that are not VOC's"
    return tree, fault


def _tree(content: bytes) -> tuple[Optional[ElementTree.Element], str]:
    try:
        return ElementTree.fromstring(content), ''
    except (ElementTree.ParseError, ValueError, LookupError):
        pass
    # Expat knows few encodings, and many a file is in another one than it says.
    declared = _DECLARED.match(content)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = 'utf-16' if wide else declared[1].decode() if declared else 'utf-8-sig'
    try:
        text = content.decode(encoding, errors='replace')
        # Without the declaration, which is not for what is decoded already.
        tree = ElementTree.fromstring(re.sub(r'^\s*<\?xml.*?\?>', '', text, flags=re.S))
    except LookupError:
        return None, 'annotation files in an encoding that is not known'
    except (ElementTree.ParseError, ValueError):
        return None, "annotation files that can't be read"
    # A path may be spoilt, the name of a class may not.
    if any('\ufffd' in _text(entry, 'name') for entry in tree.findall('object')):
        return None, 'annotation files in another encoding than they say'
    return tree, ''


def _add(writer: CocoWriter, entry: ElementTree.Element, where: str, swapped: list[str]) -> None:
    corners = [_number(entry, f'bndbox/{edge}') for edge in ('xmin', 'ymin', 'xmax', 'ymax')]
    name = _text(entry, 'name')
    if not name or None in corners:
        writer.drop('objects without a name or a box', where)
        return
    left, top, right, bottom = corners
    if right < left or bottom < top:
        swapped.append(where)
        (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))
    if right == left or bottom == top:
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
