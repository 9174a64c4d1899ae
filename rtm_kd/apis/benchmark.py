"""Plain training, MMRazor's distillation and ours, step by step in one process."""

import copy
import functools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import LOOPS, MODELS, DefaultScope
from mmengine.runner import EpochBasedTrainLoop, Runner

from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import read_checkpoint

from .test import use_student
from .train import enable_amp

#: Name of a variant -> what it is.
VARIANTS = {
    'plain': "MMYOLO's training of the student",
    'plain channels_last': 'the same in the memory format that ours uses',
    'mmrazor': "MMRazor's distillation",
    'mmrazor stopped': 'the same after its hook has stopped it',
    'rtm_kd': 'ours',
    'rtm_kd reference': "ours with MMRazor's arithmetic",
    'rtm_kd detached': 'ours after the detach',
}
PARTS = ('data', 'teacher', 'student', 'distillation', 'backward', 'optimizer', 'EMA')


def benchmark(
    config: str,
    size: int = 320,
    batch: int = 4,
    steps: int = 10,
    warmup: int = 2,
    amp: bool = False,
    workers: int = 0,
    variants: tuple[str, ...] = tuple(VARIANTS),
    data_root: Optional[str] = None,
) -> dict[str, Any]:
    """Time whole training steps of every variant, interleaved, on the same batches.

    A step is the runner's: data, forward, backward, optimizer, hooks. Teacher and student
    have random weights.

    Args:
        config (str): Path of a distillation config of ours.
        size (int): Side of the training images, in pixels.
        batch (int): Images of a step.
        steps (int): Steps that are counted, of each variant.
        warmup (int): Steps before them.
        amp (bool): Automatic mixed precision, for every variant.
        workers (int): Processes that load data; 0 loads in the step.
        variants (tuple[str]): Of :data:`VARIANTS`.
        data_root (str, optional): Folder for the dataset that the package draws, which
            takes the place of the config's; it has six classes, no more than the config's
            model may have. None trains on the config's own.

    Returns:
        dict: ``'setting'``, and for each variant its median seconds a step, their ratio to
        plain, the median seconds of each part, peak memory of a step in bytes, and the
        size of its checkpoint in bytes.

    Raises:
        ValueError: If a variant is unknown, or two were about to do different work.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or 'plain' not in variants:
        raise UsageError(f'variants must be "plain" and others of {list(VARIANTS)}, got {unknown}')
    options = dict(teacher_ckpt='random', img_scale=[size, size], train_batch_size_per_gpu=batch)
    base = load_config(config, options)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in variants:
            cfg = _variant(name, copy.deepcopy(base))
            _shorten(cfg, os.path.join(folder, name.replace(' ', '_')), workers, data_root)
            if amp:
                enable_amp(cfg)
            runs[name] = _Run(cfg, channels_last=name == 'plain channels_last')
        for index in range(warmup + steps):
            order = list(runs)
            # Nobody always comes after the same neighbour.
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
        workers=workers,
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    return dict(setting=setting, results=results)


def fast_path_error(
    config: str, checkpoint: str, cfg_options: dict[str, Any], batches: int = 4
) -> dict[str, dict[str, float]]:
    """Compare the distillation losses of each fast path with the reference's.

    Args:
        config (str): Path of a distillation config of ours, with its own data.
        checkpoint (str): Checkpoint of the distillation, for the student and connectors.
        cfg_options (dict): Such as ``teacher_ckpt``.
        batches (int): Training batches to average over.

    Returns:
        dict: For each path ``'loss'``, the mean relative error of the sum of the losses,
        and ``'gradient'``, of the student's gradient of it: the norm of the difference,
        relative to the norm.
    """
    cfg = load_config(config, {**cfg_options, 'train_num_workers': 0})
    state_dict = read_checkpoint(checkpoint)['state_dict']

    def build(reference: bool):
        model = MODELS.build(ConfigDict(cfg.model, reference=reference)).train()
        model.load_state_dict(state_dict)
        return model

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        reference = build(True)
        paths = {
            'teacher folded, in half precision': build(True),
            'norm and divergence in one': build(True),
            'student channels_last': build(True),
            'all of them': build(False),
        }
        paths['teacher folded, in half precision']._teacher = build(False)._teacher
        paths['norm and divergence in one'].distiller.reference = False
        paths['student channels_last']._channels_last = True
        paths['student channels_last'].student.to(memory_format=torch.channels_last)
        loader = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    errors = {name: defaultdict(list) for name in paths}
    for index in range(batches):
        _seed(index)
        data = reference.data_preprocessor(next(loader), True)
        expected_loss, expected = _distillation_gradient(reference, data)
        for name, model in paths.items():
            loss, gradient = _distillation_gradient(model, data)
            errors[name]['loss'].append(abs(loss / expected_loss - 1))
            errors[name]['gradient'].append(float((gradient - expected).norm() / expected.norm()))
    return {
        name: {key: statistics.mean(values) for key, values in error.items()}
        for name, error in errors.items()
    }


def _distillation_gradient(model, data: dict) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    losses = model.loss(data['inputs'], copy.deepcopy(data['data_samples']))
    total = sum(loss for name, loss in losses.items() if name.startswith('distill.'))
    total.backward()
    gradients = [p.grad.flatten() for p in model.student.parameters() if p.grad is not None]
    return float(total), torch.cat(gradients)


def start_up(
    config: str, train_tool: str, data_root: Optional[str] = None, repeats: int = 3
) -> dict[str, float]:
    """Time `tools/train.py` from the start of its process to its first iteration's log line.

    The teacher is read from a checkpoint, as in a real run.

    Args:
        config (str): Path of a distillation config of ours.
        train_tool (str): Path of ``tools/train.py``.
        data_root (str, optional): As in :func:`benchmark`.
        repeats (int): Processes of each kind, interleaved.

    Returns:
        dict[str, float]: Median seconds for ``'plain'``, ``'mmrazor'`` and ``'rtm_kd'``.

    Raises:
        RuntimeError: With the end of its output, if a run does not get that far.
    """
    base = load_config(
        config,
        dict(teacher_ckpt='random', img_scale=[320, 320], train_batch_size_per_gpu=4),
    )
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        teacher_ckpt = os.path.join(folder, 'teacher.pth')
        with DefaultScope.overwrite_default_scope(base.default_scope):
            teacher = MODELS.build(resolve_model_cfg(base.model.teacher, 'teacher'))
        torch.save(dict(state_dict=teacher.state_dict(), meta={}), teacher_ckpt)
        commands = {}
        for name in ('plain', 'mmrazor', 'rtm_kd'):
            cfg = _variant(name, copy.deepcopy(base))
            _shorten(cfg, os.path.join(folder, name), 0, data_root)
            cfg.train_cfg.type = 'EpochBasedTrainLoop'
            cfg.default_hooks.logger.interval = 1
            cfg.log_level = 'INFO'
            if name != 'plain':
                cfg.model.teacher_ckpt = teacher_ckpt
            cfg.dump(os.path.join(folder, f'{name}.py'))
            commands[name] = [
                sys.executable,
                '-W',
                'ignore',
                train_tool,
                os.path.join(folder, f'{name}.py'),
            ]
        for _ in range(repeats):
            for name, command in commands.items():
                seconds[name].append(_until_first_iteration(command))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _until_first_iteration(command: list[str]) -> float:
    start = time.perf_counter()
    output = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            output.append(line)
            if 'Epoch(train)' in line:
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise RuntimeError('the run ended before its first iteration:\n' + ''.join(output[-20:]))


def own_share(
    student_channels: int = 96,
    teacher_channels: int = 128,
    size: int = 640,
    batch: int = 32,
    steps: int = 5,
) -> dict[str, dict[str, float]]:
    """Time connectors and losses alone, forward and backward, MMRazor's classes and ours.

    Args:
        student_channels (int): Channels of the student's FPN.
        teacher_channels (int): Channels of the teacher's.
        size (int): Side of the images that the features are of, in pixels.
        batch (int): Images.
        steps (int): Repetitions, interleaved.

    Returns:
        dict: For ``'mmrazor'`` and ``'rtm_kd'`` the median ``'seconds'`` and the peak of
        ``'memory'`` beyond the features themselves, in bytes.
    """
    import mmrazor.models  # noqa: F401, registers what is compared with

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    features = {
        f'fpn{i}': [
            torch.randn(batch, channels, size // stride, size // stride, device=device)
            for channels in (student_channels, teacher_channels)
        ]
        for i, stride in enumerate((8, 16, 32))
    }
    # Each in the memory format in which its models hand them over.
    formats = dict(mmrazor=torch.contiguous_format, rtm_kd=torch.channels_last)
    if device == 'cuda':
        formats['rtm_kd'] = torch.contiguous_format
    sides = {}
    norm_cfg = dict(type='BN', affine=False, track_running_stats=False)
    for scope in formats:
        connectors, losses, mappings = {}, {}, {}
        for level in features:
            connectors[f'{level}_s'] = dict(
                type=f'{scope}.ConvModuleConnector',
                in_channel=student_channels,
                out_channel=teacher_channels,
                bias=False,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )
            connectors[f'{level}_t'] = dict(
                type=f'{scope}.NormConnector', in_channels=teacher_channels, norm_cfg=norm_cfg
            )
            losses[f'loss_{level}'] = dict(type=f'{scope}.ChannelWiseDivergence')
            mappings[f'loss_{level}'] = dict(
                preds_S=dict(from_student=True, recorder=level, connector=f'{level}_s'),
                preds_T=dict(from_student=False, recorder=level, connector=f'{level}_t'),
            )
        recorders = {level: dict(type='ModuleOutputs', source='unused') for level in features}
        sides[scope] = MODELS.build(
            dict(
                type='rtm_kd.ConfigurableDistiller',
                student_recorders=recorders,
                teacher_recorders=recorders,
                connectors=connectors,
                distill_losses=losses,
                loss_forward_mappings=mappings,
                # Module by module where the classes are MMRazor's.
                reference=scope == 'mmrazor',
            )
        ).to(device)

    seconds, memory = defaultdict(list), {}
    for index in range(steps + 2):
        for scope, distiller in sides.items():
            student, teacher = (
                {
                    level: [pair[side].contiguous(memory_format=formats[scope])]
                    for level, pair in features.items()
                }
                for side in (0, 1)
            )
            for (feature,) in student.values():
                feature.requires_grad_()

            def run(distiller=distiller, student=student, teacher=teacher):
                sum(distiller.compute_distill_losses(student, teacher).values()).backward()

            if index == 0:
                memory[scope] = peak_memory(run)
            else:
                seconds[scope].append(_seconds(run))
            for (feature,) in student.values():
                feature.grad = None
    return {
        scope: dict(seconds=statistics.median(seconds[scope][1:]), memory=memory[scope])
        for scope in sides
    }


def peak_memory(function: Callable[[], Any]) -> int:
    """Return the most bytes that the function held at once, beyond what it began with."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    held = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted(events, key=_start):
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def _start(event) -> int:
    # In nanoseconds from torch 2.2 on, in microseconds before.
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()


@LOOPS.register_module()
class SteppedTrainLoop(EpochBasedTrainLoop):
    """A training loop that prepares an epoch and leaves its steps to the caller."""

    def run(self):
        """Do what comes before the first step."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches = iter(self.dataloader)
        return self.runner.model

    def next_batch(self) -> Any:
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.dataloader)
            return next(self.batches)


class _Run:
    """One variant: its runner, and what its steps took."""

    def __init__(self, cfg: Config, channels_last: bool) -> None:
        self.runner = Runner.from_cfg(cfg)
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
        _seed(index)
        self._now.clear()
        batch: dict = {}

        def whole():
            batch.update(self._timed('data', self.loop.next_batch)())
            self.loop.run_iter(index % len(self.loop.dataloader), batch)

        seconds = _seconds(whole)
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
        return dict(
            seconds=seconds,
            parts=parts,
            memory=memory,
            checkpoint=os.path.getsize(os.path.join(self.runner.work_dir, 'benchmark.pth')),
        )

    def _watch(self) -> None:
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        student = getattr(model, 'student', model)
        self._watch_method(student, 'loss', 'student')
        if hasattr(model, 'distiller'):
            self._watch_method(model.distiller, 'compute_distill_losses', 'distillation')
        if getattr(model, 'teacher', None) is not None:
            self._watch_method(model.teacher, 'extract_feat', 'teacher')
        self._watch_method(wrapper, 'backward', 'backward')
        self._watch_method(wrapper, 'step', 'optimizer')
        self._watch_method(wrapper, 'zero_grad', 'optimizer')
        for hook in self.runner.hooks:
            if isinstance(hook, EMAHook):
                self._watch_method(hook, 'after_train_iter', 'EMA')

    def _watch_method(self, owner: Any, name: str, part: str) -> None:
        object.__setattr__(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args, **kwargs):
            result = []
            self._now[part] += _seconds(lambda: result.append(function(*args, **kwargs)))
            return result[0]

        return timed


def _images_channels_last(backbone, args):
    return (args[0].contiguous(memory_format=torch.channels_last),)


def _variant(name: str, cfg: Config) -> Config:
    stopping = [hook for hook in cfg.custom_hooks if 'detach_epoch' in hook]
    others = [hook for hook in cfg.custom_hooks if 'detach_epoch' not in hook]
    if name.startswith('plain'):
        cfg.custom_hooks = others
        use_student(cfg)
    elif name.startswith('mmrazor'):
        stop = 0 if name == 'mmrazor stopped' else cfg.max_epochs
        cfg.custom_hooks = others + [dict(type='mmrazor.StopDistillHook', stop_epoch=stop)]
        cfg.model = mmrazor_cfg(cfg.model)
    else:
        cfg.model.reference = name == 'rtm_kd reference'
        for hook in stopping:
            hook.detach_epoch = 0 if name == 'rtm_kd detached' else cfg.max_epochs
    return cfg


def mmrazor_cfg(model: ConfigDict) -> ConfigDict:
    """Return a model config of ours in MMRazor's spelling, for a random teacher."""

    def respell(value):
        if isinstance(value, dict):
            return {key: respell(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [respell(item) for item in value]
        return value.replace('rtm_kd.', 'mmrazor.') if isinstance(value, str) else value

    cfg = respell(model)
    for key in ('teacher_ckpt', 'reference'):
        cfg.pop(key, None)
    for key in ('architecture', 'teacher'):
        cfg[key] = resolve_model_cfg(model[key], key)
    cfg['distiller']['_scope_'] = 'mmrazor'
    return ConfigDict(cfg)


def _shorten(cfg: Config, work_dir: str, workers: int, data_root: Optional[str]) -> None:
    """Leave the training steps of a config, and nothing that a step does not need."""
    cfg.work_dir = work_dir
    # MMEngine shares a message hub and a visualizer among the runs of one name.
    cfg.experiment_name = cfg.visualizer.name = uuid.uuid4().hex
    cfg.train_cfg = dict(type='SteppedTrainLoop', max_epochs=cfg.max_epochs)
    for split in ('val', 'test'):
        for key in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{key}'] = None
    cfg.randomness = dict(seed=0)
    cfg.log_level = 'ERROR'
    loader = cfg.train_dataloader
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    if data_root is not None:
        loader.dataset = dict(
            type='rtm_kd.DrawnDataset',
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            pipeline=loader.dataset.pipeline,
        )
    for model in (cfg.model, cfg.model.get('architecture'), cfg.model.get('teacher')):
        if isinstance(model, dict) and 'backbone' in model:
            # A step needs no pretrained weights, which would be a download.
            model.backbone.init_cfg = None


def _check_same_work(batches: dict[str, Any]) -> None:
    first, *others = batches.items()
    for name, batch in others:
        mine, theirs = first[1]['inputs'], batch['inputs']
        if len(mine) != len(theirs) or any(
            a.dtype != b.dtype or not torch.equal(a, b) for a, b in zip(mine, theirs)
        ):
            raise UsageError(
                f'"{first[0]}" and "{name}" were given different images, so their times '
                'can not be compared; use workers=0'
            )


def _seed(index: int) -> None:
    random.seed(index)
    np.random.seed(index)
    torch.manual_seed(index)


def _seconds(function: Callable[[], Any]) -> float:
    _synchronize()
    start = time.perf_counter()
    function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
