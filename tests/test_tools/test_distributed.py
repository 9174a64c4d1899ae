import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist
from helpers import ROOT, as_arguments, in_processes, unique_names
from mmengine.hooks import Hook
from mmengine.runner import Runner

from rtm_kd.apis import train

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='gloo is for machines without a GPU'
)


class Watch(Hook):
    """Compares the processes' models around every epoch."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.detached = []  # at the begin and end of each epoch
        self.batch_sizes = []

    def before_train_epoch(self, runner):
        model = runner.model.module
        self.detached.append(model.distillation_stopped)
        for name, own in model.state_dict().items():
            first = own.clone()
            torch_dist.broadcast(first, 0)
            assert torch.equal(own, first), name

    after_train_epoch = before_train_epoch

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.batch_sizes.append(len(data_batch['inputs']))
        assert outputs['loss'].isfinite()


@pytest.fixture
def watch(monkeypatch):
    """``watch()`` is the hook that the next run gets."""
    watched = []

    def next_watch():
        watched.append(Watch())
        return watched[-1]

    original = Runner.train

    def watched_train(self):
        self.register_hook(watched[-1])
        return original(self)

    monkeypatch.setattr(Runner, 'train', watched_train)
    return next_watch


def run(config, options, **kwargs):
    return train(config, cfg_options={**options, **unique_names()}, launcher='pytorch', **kwargs)


@pytest.fixture
def short(options):
    """Ten images, two epochs, the second without the teacher, in between half an update."""
    options.update(
        {
            'train_dataloader.dataset.indices': 10,
            'max_epochs': 2,
            'train_cfg.val_begin': 3,
            'optim_wrapper.accumulative_counts': 2,
        }
    )
    return options


def train_in_one_go(rank, watch, config, options, work_dir):
    seen = watch()
    runner = run(config, options, work_dir=work_dir)
    assert seen.detached == [False, False, True, True]
    assert seen.batch_sizes == [2, 2, 1, 2, 2, 1]
    assert not runner.model.find_unused_parameters


def test_two_processes_train_across_the_detach(kd_config, short, watch, tmp_path):
    short['train_batch_size_per_gpu'] = 2
    in_processes(2, train_in_one_go, watch, kd_config, short, str(tmp_path))


def launch(script, *arguments, seconds=300):
    """Start one of the tools, on a port of its own choice."""
    environment = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
    environment.pop('PORT', None)
    return subprocess.Popen(
        ['bash', str(ROOT / 'tools' / script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_process_that_dies_takes_the_others_along_and_the_run_is_resumed(
    kd_config, short, tmp_path
):
    short.update(max_epochs=4, num_epochs_stage2=2)
    arguments = [kd_config, 2, '--work-dir', tmp_path]
    options = ['--cfg-options', *as_arguments(short)]

    with launch('dist_train.sh', *arguments, *options) as dying:
        for _ in iter(lambda: (tmp_path / 'epoch_1.pth').exists(), True):
            assert dying.stdout.readline()
        ranks = Path(f'/proc/{dying.pid}/task/{dying.pid}/children').read_text().split()
        os.kill(int(ranks[1]), signal.SIGKILL)
        output = dying.communicate(timeout=60)[0]
    assert dying.returncode != 0, output[-3000:]
    assert not any(os.path.exists(f'/proc/{rank}') for rank in ranks)

    with launch('dist_train.sh', *arguments, '--resume', *options) as resumed:
        output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output[-3000:]
    assert 'GPU number: 2' in output and 'Epoch 3: distillation has ended' in output
    epochs = {int(n) for n in re.findall(r'Epoch\(train\) +\[(\d+)\]', output)}
    assert max(epochs) == 4 and 1 not in epochs

    arguments = [kd_config, tmp_path / 'epoch_4.pth', 2, '--work-dir', tmp_path]
    with launch('dist_test.sh', *arguments, *options) as tested:
        output = tested.communicate(timeout=300)[0]
    assert tested.returncode == 0, output[-3000:]
    assert 'coco/bbox_mAP' in output
