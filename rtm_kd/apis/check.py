"""A quick look at a config before a long run."""

import contextlib
import copy
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Optional

import pycocotools.coco
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from rtm_kd.engine.hooks.run_record_hook import peak_memory
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.algorithms.frozen_teacher import RANDOM
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import check_state_dict, read_checkpoint
from rtm_kd.utils.errors import name_what_can_not_be_built, printable

from .checks import check_batch_size, check_data_files, check_datasets, check_values
from .pipelines import check_pipelines
from .runner import build_runner
from .train import enable_amp

# Images of the steps that are timed where there is no GPU: a whole batch may take a minute.
_MOST_IMAGES_ON_A_CPU = 4
# Batches on which a look is taken at what the teacher's features vary by.
_BATCHES = 8
_LEAST_SHARE = 0.5
_STEPS = 3  # the first of which is slower than all later ones, and not counted


def check(
    config: str,
    images: int = 200,
    cfg_options: Optional[dict[str, Any]] = None,
    amp: bool = False,
) -> dict[str, Any]:
    """Look at data, teacher and one training step of a config, and print what was found.

    Args:
        config (str): Path of the config.
        images (int): Validation images on which the teacher is tested, 0 for none.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        amp (bool): Automatic mixed precision, in the steps that are timed.

    Returns:
        dict: ``'data'``: split -> images, boxes and boxes of each class; ``'teacher_mAP'``:
        None if it could not be tested; ``'step'``: seconds of a step with a whole batch, and
        peak memory in MB, without a GPU that of the process, and ``'cache_mb'``, what the
        caches of images take in all processes that load; ``'hours'``: of the whole run, without
        evaluation.

    Raises:
        ValueError: For whatever would stop the run before its first step, in one sentence.
    """
    if images < 0:
        raise UsageError(f'--images must be 0 or more, got {images}')
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    if amp:
        enable_amp(cfg)
    check_data_files(cfg, 'train', 'val')
    found = {}
    with tempfile.TemporaryDirectory() as folder, name_what_can_not_be_built(), quiet():
        runner = build_runner(in_folder(cfg, folder))
        check_datasets(runner, 'train', 'val')
        check_batch_size(runner)
        for warning in check_pipelines(cfg):
            print(f'warning: {warning}')
        found['data'] = {
            split: _count(getattr(runner, f'{split}_dataloader').dataset)
            for split in ('train', 'val')
            if getattr(runner, f'_{split}_loop') is not None
        }
        for split, counts in found['data'].items():
            _print_data(split, counts)
        # Before the teacher is tested: its peak of memory would hide that of the steps.
        found['step'] = _time_steps(runner)
        found['teacher_mAP'] = _teacher_map(cfg, folder, images) if images else None
        found['hours'] = _hours(runner, found['step'])
    step = found['step']
    print(
        f'a step: {step["distilling"]:.2f} s, after the detach {step["detached"]:.2f} s, '
        f'{step["memory_mb"]:.0f} MB at most'
        + (f'; measured with {step["images"]} images and scaled' if step['scaled'] else '')
    )
    if step['cache_mb']:
        print(
            f'the caches of mosaic and mixup: {step["cache_mb"]:.0f} MB of main memory, when full'
        )
    if step['uneven']:
        print(
            f'warning: a few images make up most of the variance of what the teacher has at '
            f'{", ".join(step["uneven"])}, and a student that learns it may detect things there '
            'that do not exist; larger images (img_scale) help, or loss_weight=0.0 for that level'
        )
    hours = found['hours']
    time_of_run = f'{hours:.1f} h' if hours >= 1 else f'{max(hours * 60, 1):.0f} min'
    print(f'the whole run: about {time_of_run}, without evaluation')
    return found


def in_folder(cfg: Config, folder: str) -> Config:
    """Return a config whose run leaves nothing outside a folder, and no log."""
    cfg = copy.deepcopy(cfg)
    cfg.update(work_dir=folder, log_level='ERROR')
    # MMYOLO has none, of which MMEngine warns when it looks there first.
    cfg.log_processor = dict(type='LogProcessor', _scope_='mmengine')
    if isinstance(cfg.get('visualizer'), dict):
        cfg.visualizer.vis_backends = None
    return cfg


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let only warnings through, such as those of the annotations."""
    logging.disable(logging.INFO)
    # It prints how it reads each file. Not into another stdout: a logger would take that too.
    pycocotools.coco.print = lambda *args: None
    try:
        yield
    finally:
        del pycocotools.coco.print
        logging.disable(logging.NOTSET)
        for handler in MMLogger.get_current_instance().handlers:
            handler.flush()


def _count(dataset: BaseDataset) -> dict[str, Any]:
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    classes = dataset.metainfo.get('classes') or ()
    counts = Counter()
    empty = 0
    for index in range(len(dataset)):
        labels = [each['bbox_label'] for each in dataset.get_data_info(index)['instances']]
        counts.update(labels)
        empty += not labels
    return dict(
        images=len(dataset),
        without_boxes=empty,
        boxes=sum(counts.values()),
        classes={name: counts[label] for label, name in enumerate(classes)},
    )


def _print_data(split: str, counts: dict[str, Any]) -> None:
    classes = ', '.join(f'{name} {count}' for name, count in counts['classes'].items())
    print(
        printable(
            f'{split}: {counts["images"]} images ({counts["without_boxes"]} without boxes), '
            f'{counts["boxes"]} boxes: {classes}'
        )
    )
    silent = [name for name, count in counts['classes'].items() if not count]
    if silent:
        print(printable(f'warning: no box of {", ".join(silent)} in {split}'))


def _teacher_map(cfg: Config, folder: str, images: int) -> Optional[float]:
    """Test the teacher on the first validation images."""
    model, checkpoint = cfg.model, cfg.model.get('teacher_ckpt')
    if 'teacher' not in model or checkpoint == RANDOM or not isinstance(checkpoint, str):
        if checkpoint == RANDOM:
            print('warning: the teacher is random, and knows nothing')
        return None
    tested = in_folder(cfg, folder)
    tested.model = resolve_model_cfg(model.teacher, 'teacher')
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        tested.pop(key, None)
    for key in ('dataloader', 'evaluator', 'cfg'):
        tested[f'test_{key}'] = tested.pop(f'val_{key}')
    tested.test_cfg = dict(type='TestLoop')
    tested.custom_hooks = []
    dataset = tested.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.indices = images
    runner = build_runner(tested)
    content = read_checkpoint(checkpoint)['state_dict']
    expected = runner.model.state_dict()
    head = [name for name in expected if name.startswith('bbox_head.')]
    if any(name not in content or content[name].shape != expected[name].shape for name in head):
        print('the teacher has other classes or another head, so its mAP is not known')
        return None
    check_state_dict(content, expected, checkpoint, 'the teacher')
    runner.model.load_state_dict(content)
    subset = runner.test_dataloader.dataset
    for metric in runner.test_evaluator.metrics:
        # Or images that were not looked at would count as if nothing had been found on them.
        metric.img_ids = [subset.get_data_info(index)['img_id'] for index in range(len(subset))]
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        metrics = runner.test()
    # COCO's metric has none where nothing was found.
    score = next((value for name, value in metrics.items() if name.endswith('bbox_mAP')), 0.0)
    print(f'teacher: mAP {score:.3f} on {len(subset)} validation images')
    return score


def _time_steps(runner: Runner) -> dict[str, Any]:
    """Do some training steps, with the teacher and without."""
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    # Not of the student: pretrained weights would be a download, and time needs none.
    teacher = getattr(runner.model, '_teacher', None)
    if teacher is not None:
        teacher.load()
    on_gpu = get_device() != 'cpu'
    loader = runner.train_dataloader
    whole = loader.batch_size or loader.batch_sampler.batch_size
    images = whole if on_gpu else min(whole, _MOST_IMAGES_ON_A_CPU)
    dataset = loader.dataset
    dataset.full_init()
    batch, *others = (
        loader.collate_fn([dataset[index % len(dataset)] for index in range(first, first + images)])
        for first in range(0, _BATCHES * images, images)
    )
    runner.model.train()
    before = peak_memory()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = {}
    uneven = []
    for stage in ('distilling', 'detached'):
        if stage == 'detached' and teacher is not None:
            uneven = _uneven_levels(runner.model, [batch, *others])
            runner.model.detach_teacher()
        times = []
        for _ in range(_STEPS):
            start = time.perf_counter()
            losses = runner.model.train_step(copy.deepcopy(batch), runner.optim_wrapper)
            total = losses['loss'].item()
            times.append(time.perf_counter() - start)
        if not torch.isfinite(torch.tensor(total)):
            raise UsageError(f'the loss of the first steps is {total}; look at teacher and data')
        seconds[stage] = min(times[1:]) * whole / images
    if on_gpu:
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        # Only what the images take grows with them, not code, models and annotations.
        memory = (before + (peak_memory() - before) * whole / images) / 2**20
    return dict(
        seconds,
        memory_mb=memory,
        cache_mb=_cache_mb(loader),
        uneven=uneven,
        images=images,
        scaled=images != whole,
    )


def _uneven_levels(model: BaseModel, batches: list[dict]) -> list[str]:
    """Return the teacher's recorders whose features vary in few of the images.

    PKD normalises by the variance of the batch. On 128 x 128 images the teacher's coarsest level,
    4 x 4 positions, had an effective 0.46 of the images in it, and distilling made the student see
    objects there; on photographs of 256 x 256, where distilling helped, each level had over 0.7.
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
    r"""Return the effective share of a batch's images in its variance.

    With :math:`v_n` the mean square deviation of image :math:`n` from the mean of each channel
    over the batch, in units of that channel's variance, it is
    :math:`(\sum_n v_n)^2 / (N \sum_n v_n^2)`: 1 where all images vary alike, 1 / N where one of
    them is all of the variance.

    Args:
        features (Tensor): Feature map, (N, C, H, W).
    """
    variance, mean = torch.var_mean(features, (0, 2, 3), keepdim=True, correction=0)
    v = ((features - mean).square() / variance.clamp(min=1e-12)).mean((1, 2, 3))
    return float(v.sum() ** 2 / (len(v) * v.square().sum())) if v.any() else 1.0


def _cache_mb(loader: DataLoader) -> float:
    """What the images will take that transforms keep in each process that loads, in MB."""
    dataset = loader.dataset
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    size = 0.0
    for transform in getattr(dataset.pipeline, 'transforms', []):
        kept = getattr(transform, 'results_cache', None)
        if kept:
            mean = sum(results['img'].nbytes for results in kept) / len(kept)
            size += mean * min(transform.max_cached_images, len(dataset))
    return size * max(loader.num_workers, 1) / 2**20


def _hours(runner: Runner, step: dict[str, float]) -> float:
    epochs = runner.max_epochs
    ends = [
        getattr(hook, 'detach_epoch', getattr(hook, 'stop_epoch', epochs))
        for hook in runner.hooks
        if type(hook).__name__ in ('DistillationLossDetachHook', 'StopDistillHook')
    ]
    # Without such a hook a run distils to its end.
    detach = min([epochs, *ends])
    steps = len(runner.train_dataloader)
    seconds = steps * (detach * step['distilling'] + (epochs - detach) * step['detached'])
    return seconds / 3600
