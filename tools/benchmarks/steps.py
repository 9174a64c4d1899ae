"""Training steps of plain training, MMRazor's distillation and ours in one process."""

import copy
import functools
import itertools
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from rtm_kd.engine.runs import build_runner, enable_amp
from rtm_kd.utils import UsageError, load_config

from .measure import peak_memory, seed, time_of
from .variants import VARIANTS, shorten, variant

PARTS = ('data', 'teacher', 'student', 'distillation', 'backward', 'optimizer', 'EMA')


def benchmark(
    config: str,
    size: int = 320,
    batch: int = 4,
    steps: int = 10,
    warmup: int = 2,
    amp: bool = False,
    preloaded: bool = False,
    variants: tuple[str, ...] = VARIANTS,
    data_root: Optional[str] = None,
) -> dict[str, Any]:
    """Time whole training steps of every variant, interleaved, on the same batches.

    A step is the runner's: data, forward, backward, optimizer, hooks. Teacher and student
    have random weights.

    Args:
        config (str): Path of a distillation config of ours.
        size (int): Side of the training images, in pixels.
        batch (int): Images per step.
        steps (int): Steps to time per variant.
        warmup (int): Steps before them.
        amp (bool): Automatic mixed precision, for every variant.
        preloaded (bool): Load a batch before its step, as worker processes do if they keep up.
            By default loading is part of the step.
        variants (tuple[str]): Of :data:`VARIANTS`.
        data_root (str, optional): Folder for the drawn dataset, which replaces the config's; its
            model needs six classes or more. None trains on the config's own data.

    Returns:
        dict: ``'setting'``, and for each variant its median seconds per step, their ratio to
        plain, the median seconds of each part, the peak memory of a step and the size of its
        checkpoint, both in bytes.

    Raises:
        ValueError: If a variant is unknown, or two variants were given different images.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or 'plain' not in variants:
        raise UsageError(
            f'variants must be "plain" and others of {list(VARIANTS)}, got {list(variants)}'
        )
    options = dict(teacher_ckpt='random', img_scale=[size, size], train_batch_size_per_gpu=batch)
    base = load_config(config, options)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in variants:
            cfg = variant(name, copy.deepcopy(base))
            shorten(cfg, os.path.join(folder, name.replace(' ', '_')), data_root)
            if amp:
                enable_amp(cfg)
            runs[name] = _Run(cfg, name == 'plain channels_last', preloaded)
        for index in range(warmup + steps):
            order = list(runs)
            # Rotated, so that no variant always follows the same one.
            order = order[index % len(order) :] + order[: index % len(order)]
            batches = {name: runs[name].step(index, counted=index >= warmup) for name in order}
            _check_same_work(batches)
        results = {name: run.result(warmup + steps) for name, run in runs.items()}
    for result in results.values():
        result['ratio'] = result['seconds'] / results['plain']['seconds']
        result['checkpoint_ratio'] = result['checkpoint'] / results['plain']['checkpoint']
    device = next(runs['plain'].runner.model.parameters()).device
    setting = dict(
        config=config,
        size=size,
        batch=batch,
        steps=steps,
        amp=amp,
        preloaded=preloaded,
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    return dict(setting=setting, results=results)


@LOOPS.register_module()
class SteppedTrainLoop(EpochBasedTrainLoop):
    """A training loop that prepares an epoch and leaves its steps to the caller."""

    def run(self):
        """Do what comes before the first step."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.dataloader))
        return self.runner.model


class _Run:
    """The runner of a variant and the times of its steps."""

    def __init__(self, cfg: Config, channels_last: bool, preloaded: bool) -> None:
        self.preloaded = preloaded
        self.runner = build_runner(cfg)
        if channels_last:
            self.runner.model.to(memory_format=torch.channels_last)
            self.runner.model.backbone.register_forward_pre_hook(_images_channels_last)
        self.runner.train()
        self.loop: SteppedTrainLoop = self.runner.train_loop
        self.seconds: list[float] = []
        self.parts: dict[str, list[float]] = defaultdict(list)
        self._now: dict[str, float] = defaultdict(float)
        self._watch()

    def step(self, index: int, counted: bool) -> Any:
        seed(index)
        self._now.clear()
        batch: dict = next(self.loop.batches) if self.preloaded else {}

        def whole():
            if not self.preloaded:
                batch.update(self._timed('data', next)(self.loop.batches))
            self.loop.run_iter(index % len(self.loop.dataloader), batch)

        seconds = time_of(whole)
        if counted:
            self.seconds.append(seconds)
            for part in PARTS:
                self.parts[part].append(self._now[part])
        return batch

    def result(self, index: int) -> dict[str, Any]:
        memory = peak_memory(lambda: self.step(index, counted=False))
        self.runner.save_checkpoint(self.runner.work_dir, 'benchmark.pth')
        parts = {part: statistics.median(times) for part, times in self.parts.items()}
        seconds = statistics.median(self.seconds)
        parts['other'] = seconds - sum(parts.values())
        checkpoint = os.path.getsize(os.path.join(self.runner.work_dir, 'benchmark.pth'))
        return dict(seconds=seconds, parts=parts, memory=memory, checkpoint=checkpoint)

    def _watch(self) -> None:
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        watched = [
            (getattr(model, 'student', model), 'loss', 'student'),
            (getattr(model, 'distiller', None), 'compute_distill_losses', 'distillation'),
            (getattr(model, 'teacher', None), 'extract_feat', 'teacher'),
            (wrapper, 'backward', 'backward'),
            (wrapper, 'step', 'optimizer'),
            (wrapper, 'zero_grad', 'optimizer'),
        ]
        emas = [hook for hook in self.runner.hooks if isinstance(hook, EMAHook)]
        watched += [(hook, 'after_train_iter', 'EMA') for hook in emas]
        for owner, name, part in watched:
            if owner is not None:
                object.__setattr__(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args, **kwargs):
            result = []
            self._now[part] += time_of(lambda: result.append(function(*args, **kwargs)))
            return result[0]

        return timed


def _images_channels_last(backbone, args):
    return (args[0].contiguous(memory_format=torch.channels_last),)


def _check_same_work(batches: dict[str, Any]) -> None:
    first, *others = batches
    for name in others:
        mine, theirs = batches[first]['inputs'], batches[name]['inputs']
        if len(mine) != len(theirs) or not all(
            a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(mine, theirs)
        ):
            raise UsageError(
                f'"{first}" and "{name}" were given different images, so their times '
                "can't be compared"
            )
