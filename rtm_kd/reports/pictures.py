"""Pictures for a page: detections and attention on validation images."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Optional

import mmcv
import numpy as np
from mmengine.fileio import exists, get
from mmengine.logging import MMLogger
from mmengine.utils import track_iter_progress

from .attention import agreement, draw_attention, without_padding
from .detections import Objects, best_score_thr, ground_truth, num_disagreements
from .detectors import Detector, build_detectors, noted
from .page import image_uri
from .work_dir import WorkDir

# For each image shown so many are searched for the worst, spread over the validation set.
_SEARCHED = 20
# Longer side of the pictures on a page, in pixels.
_PHOTO_SIZE, _MAP_SIZE = 640, 320


class Box(NamedTuple):
    """A box in a photo: its corner and size in pixels of the image, and what it is."""

    x: float
    y: float
    width: float
    height: float
    label: int
    text: str
    kind: str  # 'truth', 'right', 'wrong' or 'missed'


class Panel(NamedTuple):
    """A photo with the boxes of one detector, or of the ground truth."""

    title: str
    colour: str
    caption: str
    boxes: list[Box]


class Photo(NamedTuple):
    """A validation image, with a panel for each detector."""

    name: str
    uri: str
    width: int
    height: int
    panels: list[Panel]
    maps: dict[str, list[tuple[Detector, str]]]  # by level; the attention of each is a URI


class Pictures(NamedTuple):
    """All pictures of a page."""

    notes: list[str]  # what could not be shown, and why
    photos: Sequence[Photo] = ()  # the worst first
    # Level -> title of a detector -> agreement of its attention with the teacher's.
    agreements: dict[str, dict[str, Optional[float]]] = {}
    classes: dict[int, str] = {}  # those of the boxes
    searched: int = 0  # number of images among which the worst were looked for


def take_pictures(runs: Sequence[WorkDir], num_images: int, device: str) -> Pictures:
    """Run the detectors of some runs on validation images.

    See :func:`~.detectors.build_detectors` for which they are.

    Args:
        runs (Sequence[WorkDir]): The images are those of the first one whose data are there.
        num_images (int): Images to show: those on which students and ground truth disagree most.
        device (str): Where the detectors run, ``'cpu'`` or ``'cuda:0'`` for example.

    Returns:
        Pictures: Without photos where nothing can be shown; the notes say why.
    """
    notes: list[str] = []
    logger = MMLogger.get_current_instance()
    with ExitStack() as stack:
        # MMEngine logs how each weight is initialised.
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.enter_context(noted(notes, 'There are no pictures'))
        detectors = build_detectors(runs, device, notes)
        if any(detector.detects or detector.sources for detector in detectors):
            return _pictures(detectors, num_images, notes)
    return Pictures(notes)


def _pictures(detectors: Sequence[Detector], num_images: int, notes: list[str]) -> Pictures:
    images = detectors[0].images
    ids = list(images.indices)
    searched = min(len(ids), num_images * _SEARCHED)
    ids = [ids[i] for i in np.linspace(0, len(ids) - 1, searched).round().astype(int)]
    missing = [img_id for img_id in ids if not exists(images.info(img_id)['img_path'])]
    if missing:
        notes.append(
            f'{len(missing)} of {searched} validation images are missing, '
            f'{images.info(missing[0])["img_path"]} for example.'
        )
    truths = {img_id: ground_truth(images.info(img_id)) for img_id in ids if img_id not in missing}
    steps = [(detector, img_id) for detector in detectors for img_id in truths]
    for detector, img_id in track_iter_progress(steps) if sys.stdout.isatty() else steps:
        detector.observe(img_id, truths[img_id])
    detecting = [detector for detector in detectors if detector.detects and truths]
    for detector in detecting:
        observed = [observation.detections for observation in detector.observations.values()]
        detector.score_thr = best_score_thr(observed, list(truths.values()))

    def mistakes(img_id: Any, role: str) -> int:
        return sum(
            sum(num_disagreements(detector.detections(img_id), truths[img_id]))
            for detector in detecting
            if detector.role == role
        )

    # Most mistakes of the students first; of equal ones the fewest of the teacher.
    worst = sorted(truths, key=lambda i: (-mistakes(i, 'student'), mistakes(i, 'teacher')))
    photos = [_photo(detectors, img_id, truths[img_id]) for img_id in worst[:num_images]]
    labels = {box.label for photo in photos for panel in photo.panels for box in panel.boxes}
    return Pictures(
        notes,
        photos,
        _agreements(detectors),
        {label: images.classes[label] for label in sorted(labels)},
        len(truths),
    )


def _agreements(detectors: Sequence[Detector]) -> dict[str, dict[str, Optional[float]]]:
    teacher, *others = _attending(detectors) or [None]
    if teacher is None or teacher.role != 'teacher' or not others:
        return {}

    def mean(detector: Detector, level: str) -> Optional[float]:
        values = [
            agreement(own.attention[level], teachers.attention[level])
            for own, teachers in zip(detector.observations.values(), teacher.observations.values())
            if level in own.attention and level in teachers.attention
        ]
        values = [value for value in values if value is not None]
        return sum(values) / len(values) if values else None

    return {
        level: {detector.title: mean(detector, level) for detector in others}
        for level in teacher.sources
    }


def _attending(detectors: Sequence[Detector]) -> list[Detector]:
    """Return those with attention maps: the teacher, the untrained student, then the others."""
    order = ('teacher', 'before', 'student')
    return sorted(
        (detector for detector in detectors if detector.sources),
        key=lambda detector: order.index(detector.role),
    )


def _photo(detectors: Sequence[Detector], img_id: Any, truth: Objects) -> Photo:
    images = detectors[0].images
    path = images.info(img_id)['img_path']
    image = mmcv.imfrombytes(get(path), channel_order='rgb')
    height, width = image.shape[:2]
    if max(height, width) > _PHOTO_SIZE:
        image = mmcv.imrescale(image, (_PHOTO_SIZE, _PHOTO_SIZE))
    objects = [
        _box(bbox, label, images.classes[label], 'truth')
        for bbox, label in zip(truth.bboxes, truth.labels)
    ]
    panels = [
        Panel('ground truth', 'ink', f'objects: {len(objects)}', objects),
        *(_panel(one, img_id, truth) for one in detectors if one.detects),
    ]
    small = mmcv.imrescale(image, (_MAP_SIZE, _MAP_SIZE))
    maps: dict[str, list[tuple[Detector, str]]] = {}
    for detector in _attending(detectors):
        seen = detector.observations[img_id]
        for level, (attention,) in seen.attention.items():
            multiples = (attention * attention.numel()).numpy()
            multiples = without_padding(multiples, seen.input_shape, seen.data_sample)
            uri = image_uri(draw_attention(small, multiples))
            maps.setdefault(level, []).append((detector, uri))
    return Photo(os.path.basename(path), image_uri(image), width, height, panels, maps)


def _panel(detector: Detector, img_id: Any, truth: Objects) -> Panel:
    classes, detections = detector.images.classes, detector.detections(img_id)
    boxes = [
        _box(bbox, label, f'{classes[label]} {score:.2f}', 'right' if hit >= 0 else 'wrong')
        for bbox, label, score, hit in zip(*detections)
    ]
    for i in sorted({*range(len(truth.bboxes))} - {*detections.partners.tolist()}):
        label = truth.labels[i]
        boxes.append(_box(truth.bboxes[i], label, f'{classes[label]}, missed', 'missed'))
    missed, wrong = num_disagreements(detections, truth)
    caption = f'{missed} missed, {wrong} not there; scores from {detector.score_thr:.2f}'
    return Panel(detector.title, detector.colour, caption, boxes)


def _box(bbox: np.ndarray, label: int, text: str, kind: str) -> Box:
    x1, y1, x2, y2 = (round(value, 1) for value in bbox.tolist())
    # The right side of an untrained model's box may be left of its left side.
    width, height = (max(0.0, round(side, 1)) for side in (x2 - x1, y2 - y1))
    return Box(x1, y1, width, height, int(label), text, kind)
