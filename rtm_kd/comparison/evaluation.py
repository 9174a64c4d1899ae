"""Unrounded COCO metrics of a detector: of all objects, by size and by class."""

import copy
import json
import os
from pathlib import Path
from typing import Any, Optional

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtm_kd.engine.runs import build_test_runner, testing_config
from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import class_names, read_checkpoint, student_state_dict
from rtm_kd.utils.config import bare_type, evaluators_of
from rtm_kd.utils.internals import ground_truth_of

#: Metric -> its label.
METRICS = {
    'mAP': 'mAP',
    'mAP_50': 'mAP at IoU 0.5',
    'mAP_75': 'mAP at IoU 0.75',
    'mAP_s': 'small objects',
    'mAP_m': 'medium objects',
    'mAP_l': 'large objects',
}


def evaluate(cfg: Config, checkpoint: str, split: str, work_dir: str) -> dict[str, Any]:
    """Evaluate the checkpoint of a detector, or of a distillation's student.

    MMDetection rounds to three decimals, too coarse for the difference of two similar runs. So
    its metric writes the detections, and pycocotools evaluates them again.

    Args:
        cfg (Config): Of the detector.
        checkpoint (str): Path or URL.
        split (str): ``'val'`` or ``'test'``.
        work_dir (str): Folder for the log and the detections.

    Returns:
        dict: ``'metrics'``: ``'bbox'`` or ``'segm'`` -> what :func:`average_precisions` returns;
        ``'images'``: their number.

    Raises:
        UsageError: If weights, classes and data don't fit, there is no CocoMetric, or no object.
    """
    evaluator = writing_evaluator(cfg, split, os.path.join(work_dir, split))
    cfg = testing_config(cfg, split)
    cfg.work_dir, cfg.launcher, cfg.test_evaluator = work_dir, 'none', evaluator
    content = read_checkpoint(checkpoint)
    runner = build_test_runner(cfg, student_state_dict(content['state_dict']), checkpoint)
    learned = class_names(content.get('meta', {}).get('dataset_meta'))
    classes = list(runner.test_dataloader.dataset.metainfo.get('classes', learned or ()))
    if learned and learned != classes:
        raise UsageError(
            f'{checkpoint} has learned the classes {", ".join(learned)}, and the data have '
            f'{", ".join(classes)}'
        )
    metric = next(m for m in runner.test_evaluator.metrics if isinstance(m, CocoMetric))
    runner.test()
    kinds = [kind for kind in metric.metrics if kind in ('bbox', 'segm')]
    found = {kind: average_precisions(metric, kind) for kind in kinds}
    if any(values['mAP'] is None for values in found.values()):
        raise UsageError(f'the {split} annotations have no object of one of the classes')
    return dict(metrics=found, images=len(runner.test_dataloader.dataset))


def average_precisions(metric: CocoMetric, kind: str) -> dict[str, Any]:
    """Return COCO's average precisions of the detections that a metric wrote, unrounded.

    Args:
        metric (CocoMetric): After it has evaluated. Of its ``proposal_nums`` 100 detections per
            image count, as in the log, else the highest number.
        kind (str): ``'bbox'`` or ``'segm'``.

    Returns:
        dict: :data:`METRICS` -> value, and ``'classes'``: name -> AP; None for a size or class
        without objects.
    """
    annotations = ground_truth_of(metric)
    names = [category['name'] for category in annotations.loadCats(metric.cat_ids)]
    content = json.loads(Path(f'{metric.outfile_prefix}.{kind}.json').read_text(encoding='utf-8'))
    if kind == 'segm':
        # With a box in it, pycocotools uses its area instead of the mask's.
        content = [{k: v for k, v in found.items() if k != 'bbox'} for found in content]
    # pycocotools cannot load an empty list.
    results = annotations.loadRes(content) if content else COCO()
    evaluation = COCOeval(annotations, results, kind)
    evaluation.params.catIds = metric.cat_ids
    evaluation.params.imgIds = metric.img_ids
    numbers = evaluation.params.maxDets = sorted(metric.proposal_nums)
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU thresholds from 0.5 to 0.95, recall thresholds, classes, areas, numbers of detections)
    precision = evaluation.eval['precision'][..., numbers.index(100) if 100 in numbers else -1]
    whole, *areas = (precision[..., i] for i in range(4))
    values = [_mean(value) for value in (whole, whole[0], whole[5], *areas)]
    classes = {name: _mean(whole[:, :, i]) for i, name in enumerate(names)}
    return {**dict(zip(METRICS, values)), 'classes': classes}


def _mean(precision: np.ndarray) -> Optional[float]:
    # -1 means no such object.
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else None


def writing_evaluator(cfg: Config, split: str, prefix: str) -> list[dict]:
    """Return the config of the CocoMetric of a split, with a file to write to.

    Raises:
        UsageError: If there is none, or no data.
    """
    for part in (f'{split}_dataloader', f'{split}_evaluator'):
        if not cfg.get(part):
            raise UsageError(f'the config has no {part}, and so nothing to compare on')
    evaluators = copy.deepcopy(evaluators_of(cfg, split))
    coco = [e for e in evaluators if bare_type(e) == 'CocoMetric']
    if not coco:
        names = [e.get('type') for e in evaluators]
        raise UsageError(f'compare needs a CocoMetric to evaluate with, and the config has {names}')
    if coco[0].get('format_only'):
        raise UsageError(
            'the CocoMetric of this split has format_only=True, and its images have no annotations '
            'to evaluate with; compare on val'
        )
    coco[0].update(outfile_prefix=prefix)
    return coco
