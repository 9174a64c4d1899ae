"""Detections of an image, matched with the ground truth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps
from mmengine.structures import InstanceData
from torchvision.ops import nms

IOU_THR = 0.5
# Shown where no threshold is better than another, since no object was found.
_DEFAULT_SCORE_THR = 0.3
_NMS_IOU_THR = 0.6
_MIN_SCORE = 0.05


class Objects(NamedTuple):
    """The objects of an image; boxes are x1, y1, x2, y2 in pixels of the image."""

    bboxes: np.ndarray  # (N, 4)
    labels: np.ndarray  # (N,), indices into the classes
    ignored: np.ndarray  # (M, 4), boxes in which detections do not count


class Detections(NamedTuple):
    """The detections of an image, by descending score; boxes as in :class:`Objects`."""

    bboxes: np.ndarray  # (N, 4)
    labels: np.ndarray  # (N,), indices into the classes
    scores: np.ndarray  # (N,)
    partners: np.ndarray  # (N,), the index of the object that each one found, or -1

    def from_score(self, score_thr: float) -> 'Detections':
        """Return those of at least this score."""
        return Detections(*(part[self.scores >= score_thr] for part in self))


def ground_truth(data_info: Mapping[str, Any]) -> Objects:
    """Return the objects of an image from what ``dataset.get_data_info`` returns."""
    instances = data_info.get('instances', [])
    bboxes = np.array([one['bbox'] for one in instances], dtype=np.float32).reshape(-1, 4)
    labels = np.array([one['bbox_label'] for one in instances], dtype=int)
    ignored = np.array([bool(one.get('ignore_flag')) for one in instances], dtype=bool)
    return Objects(bboxes[~ignored], labels[~ignored], bboxes[ignored])


def match(instances: InstanceData, truth: Objects) -> Detections:
    """Match detections with the ground truth, as COCO does at an IoU of 0.5.

    In descending order of scores, each one gets the object of its class that it overlaps most
    among those that are still free. Class-agnostic NMS comes first, and detections in ignored boxes
    are left out.

    Args:
        instances (InstanceData): With ``bboxes`` (N, 4), ``scores`` and ``labels``.
    """
    instances = instances[instances.scores >= _MIN_SCORE]
    # By descending score.
    instances = instances[nms(instances.bboxes, instances.scores, _NMS_IOU_THR)]
    bboxes, scores, labels = (
        instances[name].detach().cpu().numpy() for name in ('bboxes', 'scores', 'labels')
    )
    overlaps = bbox_overlaps(bboxes, truth.bboxes)
    overlaps[labels[:, None] != truth.labels[None]] = 0
    partners = np.full(len(bboxes), -1)
    for i, row in enumerate(overlaps if len(truth.bboxes) else ()):
        best = row.argmax()
        if row[best] >= IOU_THR:
            partners[i] = best
            overlaps[:, best] = 0
    # A detection covers a part of a crowd.
    covered = bbox_overlaps(bboxes, truth.ignored, mode='iof').max(axis=1, initial=0)
    kept = (partners >= 0) | (covered < IOU_THR)
    return Detections(bboxes[kept], labels[kept], scores[kept], partners[kept])


def best_score_thr(detections: Sequence[Detections], truths: Sequence[Objects]) -> float:
    """Return the score threshold with the highest F1 over some images."""
    scores = np.concatenate([found.scores for found in detections])
    right = np.concatenate([found.partners >= 0 for found in detections])
    order = np.argsort(-scores, kind='stable')
    hits = right[order].cumsum()
    if not hits.any():
        return _DEFAULT_SCORE_THR
    objects = sum(len(truth.bboxes) for truth in truths)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    return float(scores[order][f1.argmax()])


def num_disagreements(detections: Detections, truth: Objects) -> tuple[int, int]:
    """Return how many objects were missed, and how many detections found none."""
    found = int((detections.partners >= 0).sum())
    return len(truth.bboxes) - found, len(detections.bboxes) - found
