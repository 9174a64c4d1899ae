"""Helpers that several test files share."""

import contextlib
import io
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

ROOT = Path(__file__).parents[1]
CLASSES = ('disc', 'square')
KD_CONFIG = str(ROOT / 'configs/custom_dataset/kd_student_teacher.py')


def unique_names():
    """Names that keep runs apart: MMEngine shares message hubs and visualizers by name."""
    return {'experiment_name': uuid.uuid4().hex, 'visualizer.name': uuid.uuid4().hex}


def make_options(data_root):
    """Options that turn the custom_dataset example into a run of seconds."""
    return {
        'data_root': f'{data_root}/',
        'class_names': list(CLASSES),
        'img_scale': [64, 64],
        'train_batch_size_per_gpu': 4,
        'train_num_workers': 0,
        'max_epochs': 3,
        'num_epochs_stage2': 1,
        'val_interval': 10,
        'val_interval_stage2': 10,
        'teacher_ckpt': 'random',
        'randomness.seed': 0,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'default_hooks.logger.interval': 1,
    }


def tool(name, *args, **kwargs):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / name), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )


def run_tool(name, *args):
    """Run a tool in this process, which saves its imports, and return what it prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(printed):
        patched.setattr(sys, 'argv', [name, *map(str, args)])
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
    return printed.getvalue()


def as_arguments(options):
    def text(value):
        return '"[' + ','.join(map(str, value)) + ']"' if isinstance(value, list) else value

    return [f'{key}={text(value)}' for key, value in options.items()]


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def in_processes(count, function, *arguments, seconds=240):
    """Run ``function(rank, *arguments)`` in processes with the environment that torchrun sets.

    They are forked, which saves their imports, and have to exit with 0 within ``seconds``.
    """
    context = multiprocessing.get_context('fork')
    common = count, free_port(), function, arguments
    processes = [context.Process(target=_process, args=(rank, *common)) for rank in range(count)]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, end - time.monotonic()))
    ended_with = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert ended_with == [0] * count


def _process(rank, count, port, function, arguments):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    function(rank, *arguments)


def build_a_copy_alone(name, folder, change=lambda text: text, **options):
    """Copy a config alone into ``folder``, optionally change its text, and build its model."""
    config = folder / Path(name).name
    config.write_text(change((ROOT / 'configs' / name).read_text()))
    cfg = load_config(str(config), dict(teacher_ckpt='random', num_classes=4, **options))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return cfg, MODELS.build(cfg.model).train()


def connected(model):
    """(student, teacher) channels of the connector of each level."""
    return [
        tuple(model.distiller.connectors[f'fpn{i}_s'].conv_module.conv.weight.shape[1::-1])
        for i in range(3)
    ]


def batch(size=64):
    """Two images and three boxes in MMYOLO's format: (image, label, x1, y1, x2, y2)."""
    boxes = torch.tensor([[0, 0, 4, 4, 40, 44], [0, 3, 20, 10, 60, 50], [1, 1, 2, 2, 30, 30.0]])
    samples = dict(bboxes_labels=boxes, img_metas=[dict(batch_input_shape=(size, size))] * 2)
    return torch.randn(2, 3, size, size), samples


def take_a_step(model, data):
    total, logged = model.parse_losses(model.loss(*data))
    total.backward()
    assert torch.isfinite(total)
    assert sum('distill.loss_pkd' in key for key in logged) == 3
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


class Call:
    """Pickles as a call of a function, which plain unpickling would execute."""

    def __init__(self, function, *args, state=None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced
