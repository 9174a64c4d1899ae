"""What a detector found, held against the ground truth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps
from mmengine.structures import InstanceData
from torchvision.ops import nms

IOU_THR = 0.5
# Where nothing was found that is there, every threshold is as good.
_DEFAULT_SCORE_THR = 0.3
# A thing is one thing: of detections that overlap by more the best counts, whatever the classes.
_NMS_IOU_THR = 0.6
# Nobody looks at what scores less, and there is a lot of it.
_MIN_SCORE = 0.05


class Objects(NamedTuple):
    """The objects of an image.

    Args:
        bboxes (ndarray): (N, 4), x1, y1, x2, y2 in pixels of the photograph.
        labels (ndarray): (N,), indices into the classes.
        ignored (ndarray): (M, 4), boxes in which whatever is found does not count.
    """

    bboxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class Detections(NamedTuple):
    """What was found on an image, the highest score first.

    Args:
        bboxes (ndarray): (N, 4), x1, y1, x2, y2 in pixels of the photograph.
        labels (ndarray): (N,), indices into the classes.
        scores (ndarray): (N,).
        partners (ndarray): (N,), for each the index of the object that it found, or -1.
    """

    bboxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    partners: np.ndarray

    def from_score(self, score_thr: float) -> 'Detections':
        """Return those of at least this score."""
        return Detections(*(part[self.scores >= score_thr] for part in self))


def ground_truth(data_info: Mapping[str, Any]) -> Objects:
    """Return the objects of an image as a dataset of MMDetection annotates it.

    Args:
        data_info (dict): What ``dataset.get_data_info`` returns.
    """
    instances = data_info.get('instances', [])
    counted = [instance for instance in instances if not instance.get('ignore_flag')]
    ignored = [instance for instance in instances if instance.get('ignore_flag')]
    return Objects(
        bboxes=_boxes(instance['bbox'] for instance in counted),
        labels=np.array([instance['bbox_label'] for instance in counted], dtype=int),
        ignored=_boxes(instance['bbox'] for instance in ignored),
    )


def match(instances: InstanceData, truth: Objects) -> Detections:
    """Pair what was found with what is there, as COCO does at an IoU of 0.5.

    The highest score comes first and takes, of the objects of its class that nobody has yet,
    the one that it overlaps most.

    Args:
        instances (InstanceData): With ``bboxes`` (N, 4), ``scores`` and ``labels``.
        truth (Objects): The ground truth.

    Returns:
        Detections: The best of those that overlap, whatever their classes, and none that found
        what is to be ignored.
    """
    instances = instances[instances.scores >= _MIN_SCORE]
    # The highest score first.
    instances = instances[nms(instances.bboxes, instances.scores, _NMS_IOU_THR)]
    bboxes, scores, labels = (
        instances[name].detach().cpu().numpy() for name in ('bboxes', 'scores', 'labels')
    )
    overlaps = bbox_overlaps(bboxes, truth.bboxes)
    overlaps[labels[:, None] != truth.labels[None]] = 0
    partners = np.full(len(bboxes), -1)
    if len(truth.bboxes):
        for i, row in enumerate(overlaps):
            best = row.argmax()
            if row[best] >= IOU_THR:
                partners[i] = best
                overlaps[:, best] = 0
    # Of a crowd a detection covers a part.
    covered = bbox_overlaps(bboxes, truth.ignored, mode='iof').max(axis=1, initial=0)
    kept = (partners >= 0) | (covered < IOU_THR)
    return Detections(bboxes[kept], labels[kept], scores[kept], partners[kept])


def best_score_thr(detections: Sequence[Detections], truths: Sequence[Objects]) -> float:
    """Return the score from which on a detector's F1 over some images is the highest."""
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
    """Return how many objects were missed, and how many that are not there were found."""
    found = int((detections.partners >= 0).sum())
    return len(truth.bboxes) - found, len(detections.bboxes) - found


def _boxes(boxes: Any) -> np.ndarray:
    return np.array(list(boxes), dtype=np.float32).reshape(-1, 4)
