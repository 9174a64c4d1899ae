"""Time from the start of a training process to its first iteration."""

import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Optional

import torch
from mmengine.registry import MODELS, DefaultScope

from rtm_kd.datasets.drawn_dataset import CLASSES
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.utils import load_config

from .variants import shorten, variant


def start_up(
    config: str, train_tool: str, data_root: Optional[str] = None, repeats: int = 3
) -> dict[str, float]:
    """Time ``tools/train.py`` from the start of its process to its first iteration's log line.

    The teacher is read from a checkpoint, as in a real run.

    Args:
        config (str): Path of a distillation config of ours.
        train_tool (str): Path of ``tools/train.py``.
        data_root (str, optional): As in :func:`benchmark`.
        repeats (int): Processes of each kind, interleaved.

    Returns:
        dict[str, float]: Median seconds for ``'plain'``, ``'mmrazor'`` and ``'rtm_kd'``.

    Raises:
        RuntimeError: If a run ends before that, with the end of its output.
    """
    options = dict(teacher_ckpt='random', img_scale=[320, 320], train_batch_size_per_gpu=4)
    if data_root is not None:
        options['num_classes'] = len(CLASSES)
    base = load_config(config, options)
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        teacher_ckpt = os.path.join(folder, 'teacher.pth')
        with DefaultScope.overwrite_default_scope(base.default_scope):
            teacher = MODELS.build(resolve_model_cfg(base.model.teacher, 'teacher'))
        torch.save(dict(state_dict=teacher.state_dict(), meta={}), teacher_ckpt)
        commands = {}
        for name in ('plain', 'mmrazor', 'rtm_kd'):
            cfg = variant(name, copy.deepcopy(base))
            shorten(cfg, os.path.join(folder, name), data_root)
            cfg.train_cfg.type = 'EpochBasedTrainLoop'
            cfg.default_hooks.logger.interval = 1
            cfg.log_level = 'INFO'
            if name != 'plain':
                cfg.model.teacher_ckpt = teacher_ckpt
            file = os.path.join(folder, f'{name}.py')
            cfg.dump(file)
            commands[name] = [sys.executable, '-W', 'ignore', train_tool, file]
        for _ in range(repeats):
            for name, command in commands.items():
                seconds[name].append(_until_first_iteration(command))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _until_first_iteration(command: list[str]) -> float:
    start = time.perf_counter()
    output = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    ) as process:
        for line in process.stdout:
            output.append(line)
            if 'Epoch(train)' in line:
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise RuntimeError('the run ended before its first iteration:\n' + ''.join(output[-20:]))
