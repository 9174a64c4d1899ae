"""COCO annotations as the converters write them, with an account of what was left out."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.files import atomic_write

# Examples of each fault that a summary names.
_NAMED = 3
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
    OTHER_SIZE: 'put back the images as they were annotated (resized or turned since, or turned '
    'by their EXIF tag?), or export the annotations again for these',
    OTHER_FORMAT: 'save them as .jpg or .png',
}


class CocoWriter:
    """Collects images and boxes, drops what nobody could learn from, and counts it.

    Args:
        classes (Sequence[str]): Names of the classes, in the order of their labels.

    Raises:
        ValueError: If two of them are the same, or there is none.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        check_class_names(classes, 'the class names')
        self.categories = [dict(id=label, name=name) for label, name in enumerate(classes)]
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.dropped: dict[str, list[str]] = {}
        self._labels = {name: label for label, name in enumerate(classes)}
        self._seen: set[tuple] = set()

    def add_image(self, file_name: str, width: int, height: int) -> None:
        """Begin an image: the boxes that follow are its own.

        Args:
            file_name (str): Path as the dataset shall join it to its image folder.
            width, height (int): Its size, in pixels.
        """
        self.images.append(
            dict(id=len(self.images), file_name=file_name, width=width, height=height)
        )

    def add_box(
        self, name: str, corners: Sequence[float], where: str, difficult: bool = False
    ) -> None:
        """Add a box to the image that was added last, clipped to it, or count why not.

        Args:
            name (str): Its class.
            corners (Sequence[float]): Left, top, right and bottom edge, in pixels from 0.
            where (str): File and line, for the account.
            difficult (bool): Neither train on it nor count it: COCO's crowd.
        """
        image = self.images[-1]
        if name not in self._labels:
            self.drop(OTHER_CLASSES, f'{where}: {name}')
            return
        left, top = max(corners[0], 0), max(corners[1], 0)
        right, bottom = min(corners[2], image['width']), min(corners[3], image['height'])
        # CocoDataset passes over a box of less than a pixel.
        if corners[2] - corners[0] < 1 or corners[3] - corners[1] < 1:
            self.drop('boxes of no size, under a pixel', where)
        elif right - left < 1 or bottom - top < 1:
            self.drop('boxes outside their image', where)
        else:
            box = [round(edge, 2) for edge in (left, top, right - left, bottom - top)]
            key = (image['id'], name, *box)
            if key in self._seen:
                self.drop('boxes given twice', where)
                return
            self._seen.add(key)
            self.annotations.append(
                dict(
                    # From 1 on: COCO's evaluation takes a match with box 0 for none.
                    id=len(self.annotations) + 1,
                    image_id=image['id'],
                    category_id=self._labels[name],
                    bbox=box,
                    area=round(box[2] * box[3], 2),
                    iscrowd=int(difficult),
                )
            )

    def drop(self, what: str, where: str) -> None:
        """Count something that is not in the result.

        Args:
            what (str): What is dropped, in the plural: ``'boxes outside their image'``.
            where (str): File, and line if there is one.
        """
        self.dropped.setdefault(what, []).append(where)

    @property
    def content(self) -> dict[str, Any]:
        """What a COCO file holds."""
        return dict(images=self.images, annotations=self.annotations, categories=self.categories)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Raise unless there are classes, and no two of one name.

    Raises:
        ValueError: With the names that are there twice.
    """
    if not names:
        raise UsageError(f'{source} are empty; a detector needs at least one class')
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(
            f'{source} have two classes of one name: {", ".join(map(repr, twice))}; rename one of '
            'them, or merge them in the annotations'
        )


def describe(content: dict[str, Any], background: str = '') -> str:
    """Return images, boxes and classes of COCO annotations as one line.

    Args:
        content (dict): What a COCO file holds.
        background (str): What becomes of the images without boxes.
    """
    counts = {category['id']: 0 for category in content['categories']}
    for annotation in content['annotations']:
        counts[annotation['category_id']] += 1
    boxed = {annotation['image_id'] for annotation in content['annotations']}
    empty = len(content['images']) - len(boxed)
    classes = ', '.join(
        f'{category["name"]} {counts[category["id"]]}' for category in content['categories']
    )
    without = f' ({empty} without boxes{background})' if empty else ''
    return (
        f'images: {len(content["images"])}{without}, boxes: {len(content["annotations"])} '
        f'({classes})'
    )


def describe_dropped(dropped: dict[str, list[str]]) -> Iterable[str]:
    """Return a line for each reason, with how often and the first few places."""
    for what, where in dropped.items():
        yield f'dropped {what}: {first_few(where)}'


def first_few(places: Sequence[str]) -> str:
    """Return how many there are and the first few, such as ``5 (a, b, c, ...)``."""
    more = ', ...' if len(places) > _NAMED else ''
    return f'{len(places)} ({", ".join(places[:_NAMED])}{more})'


def write_coco(content: dict[str, Any], path: Path) -> None:
    """Write COCO annotations; whoever is killed leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        # As ASCII: pycocotools reads in whatever encoding the machine is set to.
        part.write_text(json.dumps(content), encoding='ascii')
