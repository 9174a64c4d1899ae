"""The figures that are compared, unrounded: of all objects, of each size and of each class."""

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

from rtm_kd.engine.runs import build_test_runner
from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import (
    class_names,
    from_mmdet_names,
    read_checkpoint,
    student_state_dict,
)
from rtm_kd.utils.config import bare_type
from rtm_kd.utils.internals import ground_truth_of

#: Names of the figures, in the order in which they are shown.
METRICS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_AREAS = ('all', 'small', 'medium', 'large')


def evaluate(cfg: Config, checkpoint: str, split: str, work_dir: str) -> dict[str, Any]:
    """Evaluate a detector's checkpoint, of a distillation's the student.

    MMDetection rounds to three decimals, which is too coarse for the difference of two like
    runs. So its metric writes the detections, and pycocotools is asked once more.

    Args:
        cfg (Config): Of the detector.
        checkpoint (str): Path or URL.
        split (str): ``'val'`` or ``'test'``.
        work_dir (str): Folder for the log and the detections.

    Returns:
        dict: ``'metrics'``: kind, ``'bbox'`` or ``'segm'``, -> what :func:`average_precisions`
        returns; ``'images'``: how many there are.

    Raises:
        ValueError: If weights, classes and data don't fit, or there is no CocoMetric.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.launcher = work_dir, 'none'
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    cfg.test_dataloader = cfg[f'{split}_dataloader']
    cfg.test_evaluator = _writing(cfg[f'{split}_evaluator'], os.path.join(work_dir, split))
    cfg.test_cfg = dict(type='TestLoop')
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg', 'load_from', 'visualizer'):
        cfg[key] = None
    # What only training needs; RunRecordHook would write a training's records.
    cfg.custom_hooks = []
    content = read_checkpoint(checkpoint)
    state_dict = from_mmdet_names(student_state_dict(content['state_dict']))
    runner = build_test_runner(cfg, state_dict, checkpoint)
    _check_classes(content.get('meta', {}), runner.test_dataloader.dataset.metainfo, checkpoint)
    metric = next(m for m in runner.test_evaluator.metrics if isinstance(m, CocoMetric))
    runner.test()
    found = {
        kind: average_precisions(
            ground_truth_of(metric),
            f'{metric.outfile_prefix}.{kind}.json',
            kind,
            metric.cat_ids,
            metric.img_ids,
            metric.proposal_nums,
        )
        for kind in metric.metrics
        if kind in ('bbox', 'segm')
    }
    return dict(metrics=found, images=len(runner.test_dataloader.dataset))


def average_precisions(
    annotations: COCO,
    detections: str,
    kind: str,
    cat_ids: list[int],
    img_ids: list[int],
    proposal_nums: tuple[int, ...] = (1, 10, 100),
) -> dict[str, Any]:
    """Return COCO's average precisions without rounding.

    Args:
        annotations (COCO): The ground truth.
        detections (str): Path of detections in COCO's result format.
        kind (str): ``'bbox'`` or ``'segm'``.
        cat_ids (list[int]): The categories that count.
        img_ids (list[int]): The images.
        proposal_nums (tuple[int]): Detections per image that are counted; of them 100 is used,
            as in the log, else the most.

    Returns:
        dict: :data:`METRICS` -> value, and ``'classes'``: name -> AP. None where there is
        nothing to find, a size or a class without objects.
    """
    names = [annotations.loadCats(cat_id)[0]['name'] for cat_id in cat_ids]
    content = json.loads(Path(detections).read_text(encoding='utf-8'))
    if kind == 'segm':
        # With a box in it pycocotools takes the area of that instead of the mask's.
        content = [{k: v for k, v in found.items() if k != 'bbox'} for found in content]
    # An empty list is no result file to pycocotools.
    results = annotations.loadRes(content) if content else COCO()
    evaluation = COCOeval(annotations, results, kind)
    evaluation.params.catIds = cat_ids
    evaluation.params.imgIds = img_ids
    numbers = evaluation.params.maxDets = sorted(proposal_nums)
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU thresholds, recall thresholds, classes, areas, numbers of detections)
    precision = evaluation.eval['precision'][..., numbers.index(100) if 100 in numbers else -1]
    areas = {area: precision[..., i] for i, area in enumerate(_AREAS)}
    whole = areas['all']
    values = (whole, whole[0], whole[5], areas['small'], areas['medium'], areas['large'])
    return {
        **{name: _mean(value) for name, value in zip(METRICS, values)},
        'classes': {name: _mean(whole[:, :, i]) for i, name in enumerate(names)},
    }


def _check_classes(meta: dict, metainfo: dict, checkpoint: str) -> None:
    learnt = class_names(meta.get('dataset_meta'))
    if learnt and learnt != list(metainfo.get('classes', learnt)):
        raise UsageError(
            f'{checkpoint} has learnt the classes {", ".join(learnt)}, and the data have '
            f'{", ".join(metainfo["classes"])}'
        )


def _mean(precision: np.ndarray) -> Optional[float]:
    # -1 stands for: no such object.
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else None


def _writing(evaluators: Any, prefix: str) -> list[dict]:
    """Return a config's evaluators, the one for COCO's metrics with a file to write to."""
    evaluators = copy.deepcopy(evaluators if isinstance(evaluators, list) else [evaluators])
    coco = [e for e in evaluators if bare_type(e) == 'CocoMetric']
    if not coco:
        names = [e.get('type') for e in evaluators]
        raise UsageError(f'compare needs a CocoMetric to evaluate with, and the config has {names}')
    if coco[0].get('format_only'):
        raise UsageError(
            'the CocoMetric of this split has format_only=True, and its images no annotations to '
            'evaluate with; compare on val'
        )
    coco[0].update(outfile_prefix=prefix)
    return coco
