"""Pictures for a page: detections and attention on validation images."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Optional

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


def take_pictures(
    runs: Sequence[WorkDir], num_images: int, device: str, notes: list[str]
) -> dict[str, Any]:
    """Run the detectors of some runs on validation images.

    See :func:`~.detectors.build_detectors` for which they are.

    Args:
        runs (Sequence[WorkDir]): The images are those of the first one whose data are there.
        num_images (int): Images to show: those on which students and ground truth disagree most.
        device (str): Where the detectors run, ``'cpu'`` or ``'cuda:0'`` for example.
        notes (list[str]): Gets a sentence on what can't be shown.

    Returns:
        dict: ``'photos'``, the worst first, among ``'searched'`` images; ``'classes'``: label ->
        name of those in the photos; ``'agreements'``: level -> title of a detector -> agreement of
        its attention with the teacher's. Empty if nothing can be shown.
    """
    logger = MMLogger.get_current_instance()
    with ExitStack() as stack:
        # MMEngine logs how each weight is initialised.
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.enter_context(noted(notes, 'There are no pictures'))
        detectors = build_detectors(runs, device, notes)
        if any(detector.detects or detector.sources for detector in detectors):
            return _pictures(detectors, num_images, notes)
    return {}


def _pictures(detectors: Sequence[Detector], num_images: int, notes: list[str]) -> dict[str, Any]:
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
    panels = [panel for photo in photos for panel in photo['panels']]
    labels = {box['label'] for panel in panels for box in panel['boxes']}
    return dict(
        photos=photos,
        searched=len(truths),
        classes={label: images.classes[label] for label in sorted(labels)},
        agreements=_agreements(detectors),
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


def _photo(detectors: Sequence[Detector], img_id: Any, truth: Objects) -> dict[str, Any]:
    """Return an image with a panel for each detector, and by level the attention of each."""
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
    caption = f'objects: {len(objects)}'
    panels = [
        dict(title='ground truth', colour='ink', caption=caption, boxes=objects),
        *(_panel(one, img_id, truth) for one in detectors if one.detects),
    ]
    small = mmcv.imrescale(image, (_MAP_SIZE, _MAP_SIZE))
    maps: dict[str, list[tuple[Detector, str]]] = {}
    for detector in _attending(detectors):
        seen = detector.observations[img_id]
        for level, (attention,) in seen.attention.items():
            multiples = (attention * attention.numel()).numpy()
            multiples = without_padding(multiples, seen.input_shape, seen.data_sample)
            drawn = image_uri(draw_attention(small, multiples))
            maps.setdefault(level, []).append((detector, drawn))
    name, uri = os.path.basename(path), image_uri(image)
    return dict(name=name, uri=uri, width=width, height=height, panels=panels, maps=maps)


def _panel(detector: Detector, img_id: Any, truth: Objects) -> dict[str, Any]:
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
    return dict(title=detector.title, colour=detector.colour, caption=caption, boxes=boxes)


def _box(bbox: np.ndarray, label: int, text: str, kind: str) -> dict[str, Any]:
    """Return a box in pixels of the image; its kind is 'truth', 'right', 'wrong' or 'missed'."""
    x1, y1, x2, y2 = (round(value, 1) for value in bbox.tolist())
    # The right side of an untrained model's box may be left of its left side.
    width, height = (max(0.0, round(side, 1)) for side in (x2 - x1, y2 - y1))
    return dict(x=x1, y=y1, width=width, height=height, label=int(label), text=text, kind=kind)
