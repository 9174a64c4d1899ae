"""Checks of a config before a long run: data, teacher, one training step, and the hours."""

import contextlib
import copy
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from rtm_kd.checks.config import (
    check_data_files,
    check_distilled_steps,
    check_values,
    innermost_datasets,
    steps_before_detach,
)
from rtm_kd.checks.pipelines import check_pipelines
from rtm_kd.engine import runs
from rtm_kd.engine.hooks.run_record_hook import peak_memory
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.distillation import Distillation
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.build_errors import explain_build_errors
from rtm_kd.utils.checkpoint import check_state_dict, from_mmdet_names, read_checkpoint
from rtm_kd.utils.config import innermost_dataset
from rtm_kd.utils.internals import build_training, has_loop, images_per_batch

# Images of a timed step without a GPU, where a whole batch may take a minute.
_MOST_IMAGES_ON_A_CPU = 4
# Batches whose teacher features are examined.
_BATCHES = 8
_LEAST_SHARE = 0.5
_STEPS = 3  # the first one is slower and not counted


def check(
    config: str,
    say: Callable[[str], None],
    images: int = 200,
    cfg_options: Optional[dict[str, Any]] = None,
    amp: bool = False,
) -> dict[str, Any]:
    """Check the data and the teacher of a config, and time training steps.

    The arguments are the options of ``tools/check.py``, whose ``--help`` describes them.

    Args:
        say (Callable[[str], None]): Called with each line for the user as soon as it is known.

    Returns:
        dict: ``'data'``: split -> images, boxes and boxes of each class; ``'teacher_mAP'``:
        None if it could not be tested; ``'step'``: seconds of a step with a whole batch,
        ``'memory_mb'``, its peak memory on the GPU or else of the process, and ``'cache_mb'``, the
        images that all loading processes cache; ``'hours'``: of the whole run without evaluation.

    Raises:
        ValueError: For anything that would stop the run before its first step.
    """
    if images < 0:
        raise UsageError(f'--images must be 0 or more, got {images}')
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    if amp:
        runs.enable_amp(cfg)
    check_data_files(cfg, 'train', 'val')
    found = {}
    with tempfile.TemporaryDirectory() as folder, explain_build_errors(), runs.quiet():
        runner = runs.build_runner(runs.temporary_run_config(cfg, folder))
        runs.check_training_data(runner)
        for warning in (*check_pipelines(cfg), *check_distilled_steps(runner)):
            say(f'warning: {warning}')
        found['data'] = {
            split: _count(split, getattr(runner, f'{split}_dataloader').dataset, say)
            for split in ('train', 'val')
            if has_loop(runner, split)
        }
        # Before the teacher is tested, whose peak memory would hide that of the steps.
        found['step'] = step = _time_steps(runner)
        tested = images and has_loop(runner, 'val')
        found['teacher_mAP'] = _teacher_map(cfg, folder, images, say) if tested else None
        found['hours'] = hours = _hours(runner, step)
    say(
        f'a step: {step["distilling"]:.2f} s, after the detach {step["detached"]:.2f} s, '
        f'{step["memory_mb"]:.0f} MB at most'
        + (f'; measured with {step["images"]} images and scaled' if step['scaled'] else '')
    )
    if step['cache_mb']:
        say(f'the caches of mosaic and mixup: {step["cache_mb"]:.0f} MB of main memory, when full')
    if step['uneven']:
        say(
            "warning: a few images make up most of the variance of the teacher's features at "
            f'{", ".join(step["uneven"])}, and a student that learns them may detect objects there '
            'that do not exist; larger images (img_scale) help, or loss_weight=0.0 for that level'
        )
    time_of_run = f'{hours:.1f} h' if hours >= 1 else f'{max(hours * 60, 1):.0f} min'
    say(f'the whole run: about {time_of_run}, without evaluation')
    return found


def _count(split: str, dataset: BaseDataset, say: Callable[[str], None]) -> dict[str, Any]:
    dataset = innermost_dataset(dataset)
    infos = [dataset.get_data_info(index)['instances'] for index in range(len(dataset))]
    boxes = Counter(instance['bbox_label'] for instances in infos for instance in instances)
    names = dataset.metainfo.get('classes') or ()
    classes = {name: boxes[label] for label, name in enumerate(names)}
    counts = dict(
        images=len(infos), without_boxes=infos.count([]), boxes=sum(boxes.values()), classes=classes
    )
    say(
        f'{split}: {len(infos)} images ({counts["without_boxes"]} without boxes), '
        f'{counts["boxes"]} boxes: '
        + ', '.join(f'{name} {count}' for name, count in classes.items())
    )
    missing = [name for name, count in classes.items() if not count]
    if missing:
        say(f'warning: no box of {", ".join(missing)} in {split}')
    return counts


def _teacher_map(
    cfg: Config, folder: str, images: int, say: Callable[[str], None]
) -> Optional[float]:
    """Test the teacher on the first validation images."""
    distillation = Distillation.of(cfg)
    # MMRazor's other algorithms have an architecture as well, and no teacher.
    if distillation is None or distillation.teacher is None:
        return None
    if not distillation.teacher_is_trained:
        say('warning: the teacher is random, and knows nothing')
        return None
    checkpoint = distillation.teacher_ckpt
    tested = runs.testing_config(runs.temporary_run_config(cfg, folder), 'val')
    tested.model = resolve_model_cfg(distillation.teacher, 'teacher')
    innermost_dataset(tested.test_dataloader.dataset).indices = images
    runner = runs.build_runner(tested)
    expected = runner.model.state_dict()
    content = from_mmdet_names(read_checkpoint(checkpoint)['state_dict'], expected)
    head = [name for name in expected if name.startswith('bbox_head.')]
    subset = runner.test_dataloader.dataset
    classes = subset.metainfo.get('classes') or ()
    number = getattr(getattr(runner.model, 'bbox_head', None), 'num_classes', len(classes))
    if (classes and number != len(classes)) or any(
        name not in content or content[name].shape != expected[name].shape for name in head
    ):
        say('the teacher has other classes or another head, so its mAP is unknown')
        return None
    check_state_dict(content, expected, checkpoint, 'the teacher')
    runner.model.load_state_dict(content)
    for metric in runner.test_evaluator.metrics:
        # Otherwise all other images would count as images without detections.
        metric.img_ids = [subset.get_data_info(index)['img_id'] for index in range(len(subset))]
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        metrics = runner.test()
    # COCO's metric has none at all if nothing was detected.
    found = [value for name, value in metrics.items() if name.endswith('mAP')] if metrics else [0.0]
    if not found:
        say("val_evaluator gives no mAP, so the teacher's is unknown")
        return None
    score = metrics.get('coco/bbox_mAP', found[0])
    say(f'teacher: mAP {score:.3f} on {len(subset)} validation images')
    return score


def _time_steps(runner: Runner) -> dict[str, Any]:
    """Time training steps with the teacher and without."""
    build_training(runner)
    # The student stays untrained: pretrained weights would be a download, and time needs none.
    teacher = getattr(runner.model, '_teacher', None)
    if teacher is not None:
        teacher.load()
    on_gpu = get_device() != 'cpu'
    loader = runner.train_dataloader
    whole = images_per_batch(loader)
    images = whole if on_gpu else min(whole, _MOST_IMAGES_ON_A_CPU)
    dataset = loader.dataset
    dataset.full_init()
    batches = [
        loader.collate_fn([dataset[index % len(dataset)] for index in range(first, first + images)])
        for first in range(0, _BATCHES * images, images)
    ]
    runner.model.train()
    before = peak_memory()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = dict(distilling=_seconds_of_a_step(runner, batches[0]) * whole / images)
    uneven = []
    if teacher is not None:
        uneven = _uneven_levels(runner.model, batches)
        runner.model.detach_teacher()
    seconds['detached'] = _seconds_of_a_step(runner, batches[0]) * whole / images
    if on_gpu:
        memory = torch.cuda.max_memory_allocated()
    else:
        # Only the images' part grows with their number, not code, models and annotations.
        memory = before + (peak_memory() - before) * whole / images
    return dict(
        seconds,
        memory_mb=memory / 2**20,
        cache_mb=_cache_mb(loader),
        uneven=uneven,
        images=images,
        scaled=images != whole,
    )


def _seconds_of_a_step(runner: Runner, batch: dict) -> float:
    times = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        losses = runner.model.train_step(copy.deepcopy(batch), runner.optim_wrapper)
        total = losses['loss'].item()
        times.append(time.perf_counter() - start)
    if not math.isfinite(total):
        raise UsageError(
            f'the loss of the first steps is {total} (NaN or Inf); check the teacher and the data'
        )
    return min(times[1:])


def _uneven_levels(model: BaseModel, batches: list[dict]) -> list[str]:
    """Return the teacher's recorders whose variance comes from few of the images.

    PKD normalises by the variance of the batch. On images of 128 x 128 pixels the teacher's
    coarsest level, 4 x 4 positions, had an effective share of 0.46, and distilling made the student
    detect objects that were not there. On photographs of 256 x 256 pixels, where distilling helped,
    each level had over 0.7.
    """
    shares: dict[str, list[float]] = {}
    for batch in batches:
        inputs = model.data_preprocessor(copy.deepcopy(batch), training=True)['inputs']
        for name, outputs in model.record_features(inputs)[1].items():
            if torch.is_tensor(outputs[0]) and outputs[0].dim() == 4:
                shares.setdefault(name, []).append(effective_share_of_images(outputs[0].float()))
    return [
        name
        for name, found in shares.items()
        if sum(share < _LEAST_SHARE for share in found) >= len(found) / 4
    ]


def effective_share_of_images(features: torch.Tensor) -> float:
    r"""Return the effective share of a batch's images that its variance comes from.

    With :math:`v_n` the mean square deviation of image :math:`n` in the features, (N, C, H, W),
    from the mean of each channel over the batch, in units of that channel's variance, it is
    :math:`(\sum_n v_n)^2 / (N \sum_n v_n^2)`: 1 if all images vary alike, 1 / N if the variance
    is that of one image.
    """
    variance, mean = torch.var_mean(features, (0, 2, 3), keepdim=True, correction=0)
    v = ((features - mean).square() / variance.clamp(min=1e-12)).mean((1, 2, 3))
    return float(v.sum() ** 2 / (len(v) * v.square().sum())) if v.any() else 1.0


def _cache_mb(loader: DataLoader) -> float:
    """Return the size of the images that transforms will cache in all loading processes, in MB."""
    size = 0.0
    for dataset in innermost_datasets(loader.dataset):
        for transform in getattr(dataset.pipeline, 'transforms', []):
            kept = getattr(transform, 'results_cache', None)
            if kept:
                mean = sum(results['img'].nbytes for results in kept) / len(kept)
                size += mean * min(transform.max_cached_images, len(dataset))
    return size * max(loader.num_workers, 1) / 2**20


def _hours(runner: Runner, step: dict[str, float]) -> float:
    steps = steps_before_detach(runner)
    seconds = steps * step['distilling'] + (runner.max_iters - steps) * step['detached']
    return seconds / 3600
