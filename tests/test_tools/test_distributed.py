"""Training and testing in several processes."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist
from helpers import ROOT, as_arguments, free_port, in_processes
from mmengine.hooks import Hook
from mmengine.runner import Runner

from rtm_kd.apis.train import train
from rtm_kd.compat.checkpoint_load import load
from rtm_kd.engine.hooks import SaveOnTerminationHook

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='gloo is for machines without a GPU'
)


class Watch(Hook):
    """Compare the models of all processes before and after every epoch."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.detached = []  # at the start and end of each epoch
        self.batch_sizes = []
        self.iterations = []
        self.sigterm_at = None

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
        self.iterations.append(runner.iter)
        assert outputs['loss'].isfinite()
        if runner.iter == self.sigterm_at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def watch(monkeypatch):
    """``watch()`` returns a new hook for the next run."""
    watched = []

    def next_watch():
        watched.append(Watch())
        return watched[-1]

    original = Runner.train

    def watched_train(self):
        self.register_hook(watched[-1])
        return original(self)

    monkeypatch.setattr(Runner, 'train', watched_train)
    # Short runs synchronise more often.
    monkeypatch.setattr(SaveOnTerminationHook.__init__, '__defaults__', (4,))
    return next_watch


def run(config, options, **kwargs):
    return train(config, cfg_options=options, launcher='pytorch', **kwargs)


@pytest.fixture
def short(options):
    """Ten images, two epochs, the second without teacher; an update spans the detach."""
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


def train_a_leg(rank, watch, config, options, work_dir, asked_at, expected):
    """Train until the end, or until process 1 gets a SIGTERM in iteration ``asked_at``."""
    seen = watch()
    seen.sigterm_at = asked_at if rank == 1 else None
    try:
        runner = run(config, options, work_dir=work_dir, resume='auto', amp=True)
    except SystemExit as ended:
        assert ended.code == 143
    else:
        assert asked_at is None
        assert runner.optim_wrapper.__class__.__name__ == 'CpuAmpOptimWrapper'
    assert seen.iterations == expected


def test_three_processes_in_bfloat16_are_terminated_and_resume(kd_config, short, watch, tmp_path):
    # Three iterations per epoch, the detach after the second epoch.
    short.update(
        {
            'train_batch_size_per_gpu': 1,
            'train_dataloader.dataset.indices': 8,
            'max_epochs': 3,
            'train_cfg.val_begin': 4,
            'sync_bn': 'torch',
        }
    )
    arguments = watch, kd_config, short, str(tmp_path)
    # They agree to stop in the fourth iteration, in the middle of the second epoch.
    in_processes(3, train_a_leg, *arguments, 1, [0, 1, 2, 3])
    in_processes(3, train_a_leg, *arguments, None, [4, 5, 6, 7, 8])
    end = load(str(tmp_path / 'epoch_3.pth'))
    assert (end['meta']['epoch'], end['meta']['iter'], end['ema_state_dict']['steps']) == (3, 9, 9)
    steps = {int(state['step']) for state in end['optimizer']['state'].values()}
    # Every second iteration and the last; the connectors have three before the detach.
    assert steps == {5, 3}


def launch(script, *arguments, port=None):
    """Start a tool, on ``port`` or a free one."""
    environment = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
    environment.pop('PORT', None)
    if port is not None:
        environment['PORT'] = str(port)
    return subprocess.Popen(
        ['bash', str(ROOT / 'tools' / script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process, path):
    """Read a run's output until it has saved a checkpoint."""
    for _ in iter(path.exists, True):
        assert process.stdout.readline()


def test_a_run_is_terminated_killed_and_resumed(kd_config, short, tmp_path):
    # Five iterations per epoch.
    short.update(train_batch_size_per_gpu=1, max_epochs=5, num_epochs_stage2=2)
    arguments = [kd_config, 2, '--work-dir', tmp_path, '--resume']
    options = ['--cfg-options', *as_arguments({**short, 'train_cfg.val_begin': 6})]

    with launch('dist_train.sh', *arguments, *options) as terminated:
        read_until(terminated, tmp_path / 'epoch_1.pth')
        # A cluster may signal only this process.
        terminated.terminate()
        output = terminated.communicate(timeout=60)[0]
    assert terminated.returncode == 143, output[-3000:]
    assert 'Traceback' not in output
    assert (tmp_path / 'terminated.pth').exists()

    with launch('dist_train.sh', *arguments, *options) as dying:
        read_until(dying, tmp_path / 'epoch_3.pth')
        ranks = Path(f'/proc/{dying.pid}/task/{dying.pid}/children').read_text().split()
        os.kill(int(ranks[1]), signal.SIGKILL)
        output = dying.communicate(timeout=60)[0]
    assert dying.returncode != 0, output[-3000:]
    assert not any(os.path.exists(f'/proc/{rank}') for rank in ranks)

    with launch('dist_train.sh', *arguments, *options) as resumed:
        output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output[-3000:]
    assert not re.findall('.*(?:Future|Deprecation)Warning: .*', output)
    assert 'GPU number: 2' in output and 'Epoch 4: distillation has ended' in output
    epochs = {int(n) for n in re.findall(r'Epoch\(train\) +\[(\d+)\]', output)}
    assert max(epochs) == 5 and min(epochs) > 2

    arguments = [kd_config, tmp_path / 'epoch_5.pth', 2, '--work-dir', tmp_path]
    with launch('dist_test.sh', *arguments, *options) as tested:
        output = tested.communicate(timeout=300)[0]
    assert tested.returncode == 0, output[-3000:]
    assert 'coco/bbox_mAP' in output


@pytest.mark.skipif(sys.platform != 'linux', reason='PR_SET_PDEATHSIG exists only on Linux')
def test_processes_end_with_their_launcher(tmp_path):
    (tmp_path / 'rank.py').write_text(
        "import time, rtm_kd\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    arguments = ['--nproc_per_node=1', f'--master_port={free_port()}', tmp_path / 'rank.py']
    with subprocess.Popen(
        [sys.executable, ROOT / 'tools/dist_launch.py', *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as launcher:
        assert launcher.stdout.readline() == 'ready\n'
        launcher.kill()
        # Ends when no process has the pipe open.
        assert launcher.communicate(timeout=60)[0] == ''


def test_a_user_error_is_reported_once_and_its_exit_status_is_kept(kd_config, tmp_path):
    options = '--cfg-options', 'teacher_ckpt=missing.pth'
    with launch('dist_train.sh', kd_config, 2, '--work-dir', tmp_path, *options) as refused:
        output = refused.communicate(timeout=100)[0]
    assert refused.returncode == 2, output[-3000:]
    assert output.count('error: ') == 1 and 'Traceback' not in output


def test_a_port_that_is_in_use_is_named(kd_config):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        with launch('dist_train.sh', kd_config, 1, port=port) as refused:
            output = refused.communicate(timeout=100)[0]
    assert refused.returncode == 2, output[-3000:]
    (line,) = (line for line in output.splitlines() if 'error: ' in line)
    assert line == f'error: port {port} is in use, perhaps by another run; choose one with PORT'
    assert 'Traceback' not in output


@pytest.mark.parametrize('number', ['0', '-1', 'two', '1.5'])
def test_an_impossible_number_of_processes_is_named(kd_config, number):
    with launch('dist_train.sh', kd_config, number) as refused:
        output = refused.communicate(timeout=100)[0]
    assert refused.returncode == 2, output[-3000:]
    assert output == f'error: the number of processes must be 1 or more, got {number}\n'
