"""Pascal VOC XML: its splits, its encodings, and the image of each annotation."""

import math
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from rtm_kd.utils.errors import UsageError, first_few
from rtm_kd.utils.image_size import EXTENSIONS

from . import files
from .base import ALL, NO_FILE, Annotations, CocoWriter, Converted, check_class_names

_FOLDERS = ('annotations', 'annotation', 'xmls', 'xml', 'labels')
_DECLARED = re.compile(rb'^\s*<\?xml[^>]*?encoding\s*=\s*["\']([\w.:-]+)["\'][^>]*\?>')
_SUFFIX = re.compile('(' + '|'.join(map(re.escape, (*EXTENSIONS, '.xml'))) + ')$', re.I)
# The first bytes of UTF-16, marked as such or not.
_WIDE = {b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16', b'<\0': 'utf-16-le', b'\0<': 'utf-16-be'}


class VocAnnotations(Annotations):
    """Pascal VOC's XML: a file for each image.

    Pixels are counted from 1, and the last one belongs to the box. A difficult object
    becomes COCO's crowd: it is neither trained on nor evaluated, as in VOC. The path is a list
    of ``ImageSets/Main``, or a folder: the dataset's, or one with XML files.
    """

    format = 'VOC'

    def _read(self) -> None:
        path, root, images = self.path, self.root, self.images
        self.splits = self._find_splits()
        listed = [file for split in self.splits.values() for file in split]
        self._parsed = {file: _parse(file) for file in files.with_progress(listed)}
        trees = [tree for tree, _ in self._parsed.values() if tree is not None]
        names = {_text(entry, 'name') for tree in trees for entry in tree.findall('object')}
        self.classes = sorted(names - {''})
        check_class_names(self.classes, f'the names of the objects in {path}')
        if images is None:
            is_below = path == root or root in path.parents
            images = root if is_below else path if path.is_dir() else path.parent
        self._by_stem = defaultdict(list)
        for image in files.images_below(images):
            self._by_stem[image.stem].append(image)

    def _find_splits(self) -> dict[str, list[Path]]:
        path = self.path
        if path.is_file():
            return {ALL: _files_of_list(path, self.root)}
        main = list(path.glob('ImageSets/Main/*.txt')) or [
            # Such as VOCdevkit/VOC2012/ImageSets/Main.
            file
            for file in files.below(path, '.txt')
            if file.parent.parts[-2:] == ('ImageSets', 'Main')
        ]
        splits = defaultdict(list)
        # The lists of several years have the same names.
        if len({file.parent for file in main}) == 1:
            for file in sorted(main, reverse=True):  # train after trainval, to replace it
                split = files.split_name(file.stem)
                if split and files.read_lines(file):
                    try:
                        splits[split] = _files_of_list(file, path)
                    except UsageError as error:
                        self.missing[split] = str(error)  # it may not be needed
        if splits:
            return dict(splits)
        if self.missing:
            raise UsageError(next(iter(self.missing.values())))
        found = files.below(path, '.xml')
        for file in found:
            splits[files.split_of_parents(file, path) or ALL].append(file)
        return {ALL: found} if ALL in splits else dict(splits)

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        writer = CocoWriter(classes or self.classes, self.root)
        for file in files.with_progress(self.splits[split]):
            where = files.relative_name(file, self.root)
            tree, fault = self._parsed[file]
            if tree is None:
                writer.dropped[fault].append(where)
                continue
            image = self._image(file, _text(tree, 'filename'))
            if image is None:
                writer.dropped[NO_FILE].append(f'{_text(tree, "filename")} of {where}')
                continue
            name = files.relative_name(image, self.root)
            annotated = [round(_number(tree, f'size/{s}') or 0) for s in ('width', 'height')]
            size = writer.size_of(image, name, annotated)
            if size is None:
                continue
            writer.add_image(name, *size)
            for number, entry in enumerate(tree.findall('object'), 1):
                _add(writer, entry, f'{where}, object {number}')
        return writer

    def _image(self, file: Path, noted: str) -> Optional[Path]:
        """Return the image of a file's own name, or of the noted one; of several, the nearest."""
        noted = noted.replace('\\', '/').rsplit('/', 1)[-1]

        def order(image: Path) -> tuple:
            shared = os.path.commonpath(map(os.path.abspath, (file.parent, image.parent)))
            # Annotations/a/b.xml belongs to JPEGImages/a/b.jpg.
            alike = {*file.parts} & {*image.parent.parts}
            nearness = -len(Path(shared).parts), -len(alike)
            return image.name.lower() != noted.lower(), *nearness, image.name != noted, image.name

        # Its own name first: the noted one is often that of before a renaming.
        others = [image for image in self._by_stem[Path(noted).stem] if image.name == noted]
        return min(self._by_stem[file.stem] or others, key=order, default=None)


def is_voc(file: Path) -> bool:
    """Whether a file is an annotation in VOC's format."""
    return _parse(file)[0] is not None


def annotations_folder(folder: Path) -> Optional[Path]:
    """Return the folder of a dataset's XML files, in any of its spellings."""
    children = {child.name.lower(): child for child in sorted(folder.glob('*')) if child.is_dir()}
    found = next((children[name] for name in _FOLDERS if name in children), None)
    return found if found and files.below(found, '.xml') else None


def _files_of_list(file: Path, root: Path) -> list[Path]:
    folder = next(filter(None, map(annotations_folder, file.parents)), root)
    lines, listed = files.read_lines(file), []
    for line in lines:
        # Lists of one class have 1 or -1 after the name, and others are of images.
        names = [line, *files.path_ends(re.sub(r'\s+(-1|0|1)$', '', line))]
        places = [folder / f'{_SUFFIX.sub("", name)}.xml' for name in names]
        listed.append(next(filter(os.path.isfile, places), places[-1]))
    if not any(map(os.path.isfile, listed)):
        raise UsageError(
            f'{file} lists {len(lines)} names ({first_few(lines)}), and {folder} has an .xml file '
            'of none of them; copy the annotations there'
        )
    return listed


def _parse(file: Path) -> tuple[Optional[ElementTree.Element], str]:
    """Return an annotation, or None and why it is left out."""
    if not os.path.isfile(file):
        return None, 'listed images without annotations'
    try:
        content = file.read_bytes()
        declared = _DECLARED.match(content)
        named = declared[1].decode() if declared else 'utf-8-sig'
        encoding = _WIDE.get(content[:2], named)
        # Decoded here, since Expat knows few encodings, and many files are in another one than
        # they declare.
        text = content.decode(encoding, errors='replace')
        tree = ElementTree.fromstring(re.sub(r'^\s*<\?xml.*?\?>', '', text, flags=re.S))
    except LookupError:
        return None, 'annotation files in an encoding that is not known'
    except (OSError, ElementTree.ParseError, ValueError):
        return None, "annotation files that can't be read"
    # A replaced character does no harm in a path, but it does in the name of a class.
    if any('\ufffd' in _text(entry, 'name') for entry in tree.findall('object')):
        return None, 'annotation files in another encoding than they say'
    return (tree, '') if tree.tag == 'annotation' else (None, "XML files that are not VOC's")


def _add(writer: CocoWriter, entry: ElementTree.Element, where: str) -> None:
    corners = [_number(entry, f'bndbox/{edge}') for edge in ('xmin', 'ymin', 'xmax', 'ymax')]
    name = _text(entry, 'name')
    if not name or None in corners:
        writer.dropped['objects without a name or a box'].append(where)
        return
    left, top, right, bottom = corners
    if right < left or bottom < top:
        writer.noted['read with their corners swapped'].append(where)
        (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))
    if right == left or bottom == top:
        # One pixel wide by the format; in practice a click without a drag.
        right, bottom = left - 1, top - 1
    box = (left - 1, top - 1, right, bottom)
    writer.add_box(name, box, where, difficult=bool(_number(entry, 'difficult')))


def _text(entry: ElementTree.Element, path: str) -> str:
    return (entry.findtext(path) or '').strip()


def _number(entry: ElementTree.Element, path: str) -> Optional[float]:
    try:
        number = float(_text(entry, path))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
