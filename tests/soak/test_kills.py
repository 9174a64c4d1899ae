"""A run that is killed 25 times ends in the state of an uninterrupted one."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, as_arguments, tool

from rtm_kd.compat.checkpoint_load import load
from rtm_kd.utils.checkpoint import newest_checkpoint

KILLS = 25
EPOCHS = 60
DETACH_EPOCH = 40
# Seconds that a run may take to reach its first epoch on a slow machine.
PATIENCE = 300


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    """Epochs of about a second, each with a checkpoint, on the drawn dataset."""
    return {
        'data_root': f'{tmp_path_factory.mktemp("drawn")}/',
        'teacher_ckpt': 'random',
        'img_scale': [64, 64],
        'train_batch_size_per_gpu': 8,
        'train_dataloader.dataset.indices': 24,
        'max_epochs': EPOCHS,
        'num_epochs_stage2': EPOCHS - DETACH_EPOCH,
        'val_interval': 10 * EPOCHS,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
    }


def start(options, work_dir, log):
    return subprocess.Popen(
        [
            *[sys.executable, '-W', 'ignore', str(ROOT / 'tools/train.py')],
            str(ROOT / 'configs/drawn/kd_student_rtmdet_teacher_drawn.py'),
            *['--work-dir', str(work_dir), '--resume', '--cfg-options', *as_arguments(options)],
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def wait_until(condition, process, seconds):
    """Return whether the process was still running when the condition became true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return process.poll() is None
        if process.poll() is not None:
            return False
        time.sleep(0.0002)
    return process.poll() is None


def state(work_dir):
    """All counters of the last checkpoint, and the shapes of its weights."""
    checkpoint = load(newest_checkpoint(str(work_dir)))
    return dict(
        epoch=checkpoint['meta']['epoch'],
        iter=checkpoint['meta']['iter'],
        ema=int(checkpoint['ema_state_dict']['steps']),
        optimizer={int(each['step']) for each in checkpoint['optimizer']['state'].values()},
        lr=[group['lr'] for group in checkpoint['optimizer']['param_groups']],
        schedulers=[
            {key: value for key, value in scheduler.items() if key != 'base_values'}
            for scheduler in checkpoint['param_schedulers']
        ],
        tensors={name: tensor.shape for name, tensor in checkpoint['state_dict'].items()},
    )


def times_of_saving(work_dir):
    return {path.stat().st_mtime for path in work_dir.glob('*.pth')}


def epochs_with_distillation(log):
    epochs = {}
    for epoch, line in re.findall(r'Epoch\(train\) +\[(\d+)\](.*)', log.read_text()):
        epochs.setdefault(int(epoch), set()).add('distill.' in line)
    return epochs


def test_a_run_survives_being_killed_at_any_moment(options, tmp_path):
    seed = int(os.environ.get('SOAK_SEED', time.time()))
    print(f'SOAK_SEED={seed}')
    dice = random.Random(seed)
    work_dir, log = tmp_path / 'killed', tmp_path / 'killed.log'
    kills = while_saving = torn = 0
    with log.open('wb') as output:
        while kills < KILLS:
            process = start(options, work_dir, output)
            seen = times_of_saving(work_dir)
            # Every kill comes after some progress, or the run would never end.
            assert wait_until(lambda: times_of_saving(work_dir) - seen, process, PATIENCE), (  # noqa: B023
                log.read_text()[-3000:]
            )
            time.sleep(dice.uniform(0, 1.5))
            saving = kills % 2 == 0
            if saving:
                alive = wait_until(lambda: any(work_dir.glob('*.part')), process, PATIENCE)
                # The .part file exists for a few milliseconds.
                time.sleep(dice.uniform(0, 0.008))
            else:
                alive = process.poll() is None
            assert alive, f'the run ended after {kills} kills; it has to be longer'
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            while_saving += saving
            torn += any(work_dir.glob('*.part'))
            assert newest_checkpoint(str(work_dir)) is not None
            print(
                f'kill {kills}: {newest_checkpoint(str(work_dir))}, parts: '
                f'{[path.name for path in work_dir.glob("*.part")]}',
                flush=True,
            )
        assert start(options, work_dir, output).wait() == 0, log.read_text()[-3000:]

    whole, whole_log = tmp_path / 'whole', tmp_path / 'whole.log'
    with whole_log.open('wb') as output:
        assert start(options, whole, output).wait() == 0
    print(f'{kills} kills, {while_saving} of them while saving, {torn} left half a file')
    assert torn > 0
    assert state(work_dir) == state(whole)
    assert (
        epochs_with_distillation(log)
        == epochs_with_distillation(whole_log)
        == {epoch: {epoch <= DETACH_EPOCH} for epoch in range(1, EPOCHS + 1)}
    )
    assert not any(work_dir.glob('*.part'))
    assert (
        tool(
            'test.py',
            ROOT / 'configs/drawn/rtmdet_student_drawn.py',
            newest_checkpoint(str(work_dir)),
            '--cfg-options',
            f'data_root={options["data_root"]}',
            cwd=tmp_path,
        ).returncode
        == 0
    )
