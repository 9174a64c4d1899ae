"""A detection dataset that needs no download: it is drawn on first use."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Union

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

from rtm_kd.registry import DATASETS
from rtm_kd.utils.errors import UsageError

# Of the classes, for MMDetection's visualizer, in RGB.
_PALETTE = dict(
    disc=(230, 60, 60),
    ring=(250, 160, 30),
    square=(70, 190, 70),
    triangle=(40, 170, 230),
    star=(120, 90, 240),
    cross=(230, 70, 200),
)
CLASSES = tuple(_PALETTE)
IMAGE_SIZE = 128  # pixels, both sides
# Diameters, in pixels: large enough to reach a detector's coarsest level as well.
_OBJECT_SIZES = (18, 96)
_TURNS = np.deg2rad((-30, 30))
_HUES = np.arange(len(CLASSES)) * 360 / len(CLASSES)  # degrees
_HUE_SPREAD = 25  # standard deviation, in degrees
# Share of the smaller of two boxes that the other may cover.
_MAX_OVERLAP = 0.25
# Fractional bits of the coordinates that OpenCV gets.
_SHIFT = 4


@DATASETS.register_module()
class DrawnDataset(CocoDataset):
    """Six shapes on cluttered backgrounds, drawn into ``data_root`` unless it has them.

    Images are 128 x 128 pixels. Each shape leans towards a colour of its own, which helps a
    short run to tell the classes apart, but about every fourth is closer to another's: the
    outline decides. Size, rotation, shading and light are random, and parts are hidden.

    Takes CocoDataset's arguments; ``ann_file`` is ``'annotations/train.json'`` or
    ``'annotations/val.json'`` and ``data_prefix`` is ``dict(img='train/')`` or
    ``dict(img='val/')``.

    Raises:
        ValueError: If ``data_root`` is missing, or holds something else.
    """

    METAINFO = dict(classes=CLASSES, palette=list(_PALETTE.values()))

    def load_data_list(self) -> list[dict]:
        """Draw the dataset if it is missing, then read it as CocoDataset does."""
        if not self.data_root:
            raise UsageError('DrawnDataset needs data_root, the folder to draw into')
        draw_dataset(self.data_root)
        return super().load_data_list()


def draw_dataset(
    root: Union[str, os.PathLike], num_train: int = 640, num_val: int = 128, seed: int = 0
) -> None:
    """Draw images and COCO annotations, unless ``root`` has them.

    They are drawn into a hidden folder beside ``root`` and renamed at the end; of several
    processes the first to finish wins. The same seed gives the same bytes with the same
    versions of NumPy and OpenCV, so it does not matter which one that is.

    Args:
        root (str | Path): Folder to make, with ``annotations/{train,val}.json``, ``train/`` and
            ``val/`` in it.
        num_train, num_val (int): Images to train and to evaluate on.

    Raises:
        ValueError: If ``root`` holds something else, or can't be written.
    """
    root = Path(root).absolute()
    if _is_drawn(root):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    except OSError as error:
        raise UsageError(
            f"the dataset can't be drawn into {root} ({error.strerror}); set data_root to a "
            'folder that can be written'
        ) from error
    try:
        scratch.chmod(0o755)  # mkdtemp's folders are closed to other users
        for stream, (split, num_images) in enumerate((('train', num_train), ('val', num_val))):
            _draw_split(scratch, split, num_images, (seed, stream))
        try:
            scratch.rename(root)  # replaces nothing but an empty folder
        except OSError as error:
            if not _is_drawn(root):
                raise UsageError(
                    f'{root} exists and is not the drawn dataset; remove it, or set data_root to '
                    'another folder'
                ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_drawn(root: Path) -> bool:
    return all((root / 'annotations' / f'{split}.json').is_file() for split in ('train', 'val'))


def _draw_split(folder: Path, split: str, num_images: int, seed: tuple[int, int]) -> None:
    (folder / split).mkdir()
    images, annotations = [], []
    for image_id in range(num_images):
        # Each image has its own stream, so it does not depend on how many there are.
        image, objects = _draw_image(np.random.default_rng((*seed, image_id)))
        file_name = f'{image_id:05d}.jpg'
        encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (folder / split / file_name).write_bytes(encoded.tobytes())
        images.append(dict(id=image_id, file_name=file_name, width=IMAGE_SIZE, height=IMAGE_SIZE))
        for label, box, area in objects:
            own = dict(id=len(annotations) + 1, image_id=image_id, category_id=label + 1)
            annotations.append(dict(**own, bbox=box, area=area, iscrowd=0))
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')


def _draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, list[int], int]]]:
    """Return an image, (H, W, 3) of uint8, and its objects: label, (x, y, w, h), area."""
    image = _background(rng)
    for _ in range(rng.integers(2, 6)):
        _draw_clutter(image, rng)
    objects: list[tuple[int, list[int], int]] = []
    for _ in range(rng.integers(8, 20)):
        label = int(rng.integers(len(CLASSES)))
        mask = _mask(label, rng)
        box = [int(side) for side in cv2.boundingRect((mask > 127).astype(np.uint8))]
        if any(_overlap(box, other) > _MAX_OVERLAP for _, other, _ in objects):
            continue
        _paint(image, mask, label, rng)
        objects.append((label, box, int((mask > 127).sum())))
    for _ in range(rng.integers(0, 3)):
        # A bar over the objects.
        start, end = rng.integers(0, IMAGE_SIZE, (2, 2)).tolist()
        thickness = int(rng.integers(2, 7))
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), thickness)
    # Uneven light, sometimes a soft focus, and noise.
    image = image * (rng.uniform(0.75, 1.05) + rng.uniform(0, 0.25) * _slope(rng))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.2))
    image = image + rng.normal(0, rng.uniform(3, 9), image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), objects


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return soft patches, almost grey, (H, W, 3) of float32 from 0 to 255.

    On colourful ones a small detector learns in minutes where objects are, but not which.
    """
    cells = int(rng.integers(3, 7))
    patches = rng.uniform(30, 225, (cells, cells, 1)) + rng.normal(0, 12, 3)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    background = cv2.resize(patches.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.clip(background, 0, 255)


def _draw_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw an arc or a polyline: edges and corners that belong to no class."""
    colour = rng.uniform(0, 255, 3).tolist()
    thickness = int(rng.integers(1, 4))
    if rng.random() < 0.5:
        points = rng.integers(0, IMAGE_SIZE, (1, 2)) + rng.integers(-25, 26, (4, 2))
        cv2.polylines(image, [points.astype(np.int32)], False, colour, thickness)
    else:
        centre = rng.integers(0, IMAGE_SIZE, 2).tolist()
        axes = rng.integers(6, 40, 2).tolist()
        start, turn = rng.uniform(0, 360, 2).tolist()
        cv2.ellipse(image, centre, axes, turn, start, start + 130, colour, thickness)


def _polygon(corners: int, *radii: float) -> np.ndarray:
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.resize(radii, (corners, 1))


_ARM = np.array([(1, -0.3), (1, 0.3), (0.3, 0.3)])
_QUARTER_TURNS = [np.linalg.matrix_power([(0, 1), (-1, 0)], i) for i in range(4)]
# Outlines within the unit circle, (N, 2) each; a second one is a hole.
_OUTLINES = dict(
    disc=[_polygon(48, 1)],
    ring=[_polygon(48, 1), _polygon(48, 0.55)],
    square=[_polygon(4, 1)],
    triangle=[_polygon(3, 1)],
    star=[_polygon(10, 1, 0.42)],
    cross=[np.concatenate([_ARM @ turn for turn in _QUARTER_TURNS])],
)


def _mask(label: int, rng: np.random.Generator) -> np.ndarray:
    """Return a shape at a random place, (H, W) of uint8: 255 inside, less along its edge."""
    diameter = np.exp(rng.uniform(*np.log(_OBJECT_SIZES)))
    # Up to a fifth of it may be outside the image.
    centre = rng.uniform(0.3 * diameter, IMAGE_SIZE - 0.3 * diameter, 2)
    angle = rng.uniform(*_TURNS)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    stretch = rng.uniform(0.8, 1.0, 2)
    outlines = [
        np.round((points @ turn * stretch * diameter / 2 + centre) * 2**_SHIFT).astype(np.int32)
        for points in _OUTLINES[CLASSES[label]]
    ]
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    cv2.fillPoly(mask, outlines, 255, cv2.LINE_AA, _SHIFT)
    return mask


def _overlap(box: list[int], other: list[int]) -> float:
    """Return the share of the smaller of two boxes (x, y, w, h) that the other covers."""
    width, height = (
        min(box[axis] + box[axis + 2], other[axis] + other[axis + 2]) - max(box[axis], other[axis])
        for axis in (0, 1)
    )
    return max(width, 0) * max(height, 0) / min(box[2] * box[3], other[2] * other[3])


def _paint(image: np.ndarray, mask: np.ndarray, label: int, rng: np.random.Generator) -> None:
    """Fill a mask with a shaded colour that is near the class's own and stands out."""
    background = image[mask > 127].mean(axis=0)
    while True:
        hue = rng.normal(_HUES[label], _HUE_SPREAD) % 360
        hsv = np.array([[[hue, rng.uniform(0.5, 1), rng.uniform(0.4, 1)]]], np.float32)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255
        if np.abs(colour - background).max() >= 70:
            break
    shade = _slope(rng) * rng.uniform(0, 40)
    alpha = mask[..., None].astype(np.float32) / 255
    image[:] = np.clip(image * (1 - alpha) + (colour + shade) * alpha, 0, 255)


def _slope(rng: np.random.Generator) -> np.ndarray:
    """Return a plane from about -1 to 1 in a random direction, (H, W, 1)."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-1, 1, IMAGE_SIZE)
    return (np.cos(angle) * along + np.sin(angle) * along[:, None])[..., None]
