"""What all formats share: annotations in splits, and a split that has become COCO's."""

import json
import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

from rtm_kd.datasets.coco_format import RESIZED_REMEDY
from rtm_kd.utils.errors import UsageError, first_few
from rtm_kd.utils.files import atomic_write
from rtm_kd.utils.image_size import image_size

ALL = 'all'  # the split of files that don't tell splits apart
OTHER_CLASSES = 'boxes of other classes'
NO_FILE = 'images without a file'
UNREADABLE = "images that can't be read"
OTHER_SIZE = 'images of another size than annotated'
OTHER_FORMAT = 'images in a format that is not read'
#: What was dropped -> what to do about it, where nothing is left.
REMEDIES = {
    OTHER_CLASSES: 'make the names agree with those in the annotations',
    NO_FILE: 'copy them there, or name their folder with --train-img or --val-img',
    UNREADABLE: 'copy or download them again',
    OTHER_SIZE: RESIZED_REMEDY,
    OTHER_FORMAT: 'save them as .jpg or .png',
}


@dataclass
class Converted:
    """One split as COCO annotations, with an account of what was left out."""

    content: dict[str, Any]  # of a COCO file
    image_folder: Path  # that its file names are relative to
    # What was left out, and what is used in spite of a fault, in the plural -> where.
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    noted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    file: Optional[Path] = None  # that already has exactly this content

    def summary(self, background: str = '') -> list[str]:
        """Return lines on what was read, dropped and noted; see :meth:`describe`."""
        account = {f'dropped {what}': where for what, where in self.dropped.items()} | self.noted
        counted = [f'{what}: {len(where)} ({first_few(where)})' for what, where in account.items()]
        return [self.describe(background), *counted]

    def describe(self, background: str = '') -> str:
        """Return a line with the numbers of images, boxes and classes.

        It says ``background`` of the images without boxes.
        """
        annotations, images = self.content['annotations'], len(self.content['images'])
        counts = Counter(annotation['category_id'] for annotation in annotations)
        empty = images - len({annotation['image_id'] for annotation in annotations})
        without = f' ({empty} without boxes{background})' if empty else ''
        names = [f'{c["name"]} {counts[c["id"]]}' for c in self.content['categories']]
        return f'images: {images}{without}, boxes: {len(annotations)} ({", ".join(names)})'

    def size_of(
        self, path: Path, name: str, annotated: Sequence[Optional[int]] = (None, None)
    ) -> Optional[tuple[int, int]]:
        """Return the width and height of an image in pixels, or count why it is left out.

        Args:
            path (Path): The image file, which the account calls ``name``.
            annotated (Sequence): Width and height that the annotations state, if they do.
        """
        try:
            size = image_size(path) if os.path.isfile(path) else None
        except OSError:
            self.dropped[UNREADABLE].append(name)
            return None
        if size is None:
            self.dropped[NO_FILE].append(name)
        elif tuple(side or own for side, own in zip(annotated, size)) != size:
            noted, own = ('x'.join(map(str, sides)) for sides in (annotated, size))
            self.dropped[OTHER_SIZE].append(f'{name}: {noted}, not {own}')
            return None
        return size

    def write(self, path: Path) -> None:
        """Write the annotations; an interrupted write leaves the old file or none."""
        with atomic_write(path) as part:
            # As ASCII: pycocotools reads in the encoding that the machine is set to.
            part.write_text(json.dumps(self.content), encoding='ascii')


class CocoWriter(Converted):
    """A split that is built from images and boxes; unusable boxes are left out and counted.

    Args:
        classes (Sequence[str]): Different names, in the order of their labels.
        image_folder (Path): The folder that the file names are relative to.
    """

    def __init__(self, classes: Sequence[str], image_folder: Path) -> None:
        categories = [dict(id=label, name=name) for label, name in enumerate(classes)]
        super().__init__(dict(images=[], annotations=[], categories=categories), image_folder)
        self._labels = {name: label for label, name in enumerate(classes)}
        self._seen: set[tuple] = set()

    def add_image(self, file_name: str, width: int, height: int) -> None:
        """Add an image, to which the boxes that follow belong; its size is in pixels."""
        images = self.content['images']
        images.append(dict(id=len(images), file_name=file_name, width=width, height=height))

    def add_box(
        self, name: str, corners: Sequence[float], where: str, difficult: bool = False
    ) -> None:
        """Clip a box to the image that was added last and add it, or count why not.

        Args:
            name (str): Its class.
            corners (Sequence[float]): Left, top, right and bottom edge, in pixels from 0.
            where (str): File and line, for the account.
            difficult (bool): COCO's crowd: neither trained on nor evaluated.
        """
        image, annotations = self.content['images'][-1], self.content['annotations']
        left, top = max(corners[0], 0), max(corners[1], 0)
        right, bottom = min(corners[2], image['width']), min(corners[3], image['height'])
        box = [round(edge, 2) for edge in (left, top, right - left, bottom - top)]
        key = (image['id'], name, *box)
        # CocoDataset ignores a box of less than a pixel.
        if name not in self._labels:
            self.dropped[OTHER_CLASSES].append(f'{where}: {name}')
        elif corners[2] - corners[0] < 1 or corners[3] - corners[1] < 1:
            self.dropped['boxes of no size, under a pixel'].append(where)
        elif right - left < 1 or bottom - top < 1:
            self.dropped['boxes outside their image'].append(where)
        elif key in self._seen:
            self.dropped['boxes given twice'].append(where)
        else:
            self._seen.add(key)
            # From 1 on: COCO's evaluation takes a match with box 0 for none.
            ids = dict(id=len(annotations) + 1, image_id=image['id'])
            ids['category_id'] = self._labels[name]
            area = round(box[2] * box[3], 2)
            annotations.append(dict(**ids, bbox=box, area=area, iscrowd=int(difficult)))


@dataclass
class Annotations(ABC):
    """Annotations of one format, in the splits that their files name.

    Raises:
        ValueError: If they can't be read, or two classes have the same name.
    """

    path: Path  # the file or folder
    root: Path  # folder of the dataset
    images: Optional[Path] = None  # their folder, where it is not found automatically
    names: Optional[list[str]] = None  # the classes, where the format has only their numbers

    format: ClassVar[str]
    # 'train', 'val' or 'test' -> its files; 'all' if the files don't tell splits apart.
    splits: dict[str, Any] = field(init=False)
    classes: list[str] = field(init=False)  # in the order of their labels
    # Split that is named but not there -> what to do about it.
    missing: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._read()

    @abstractmethod
    def _read(self) -> None:
        """Find the splits and the classes."""

    @abstractmethod
    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        """Read a split into COCO annotations of these classes in this order, by default all."""

    def split_for(self, use: str) -> Optional[str]:
        """Return the split to use as ``'train'`` or ``'val'``, None if there is none."""
        return next((name for name in (use, ALL) if name in self.splits), None)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Raise unless there are classes, and no two of the same name.

    Raises:
        ValueError: With the names that are duplicated.
    """
    if not names:
        raise UsageError(f'{source} are empty; a detector needs at least one class')
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(
            f'{source} have two classes of one name: {", ".join(map(repr, twice))}; rename one of '
            'them, or merge them in the annotations'
        )
