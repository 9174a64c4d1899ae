"""A comparison killed at any moment resumes, and all of its runs are complete."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from helpers import ROOT, as_arguments

from rtm_kd.comparison.records import read_run
from rtm_kd.comparison.sides import SIDES

KILLS = 6
EPOCHS = 12
# Seconds that a run may take to reach its first epoch on a slow machine.
PATIENCE = 300


def start(folder, data_root, log):
    options = {
        'data_root': f'{data_root}/',
        'teacher_ckpt': 'random',
        'img_scale': [64, 64],
        'train_batch_size_per_gpu': 8,
        'train_dataloader.dataset.indices': 24,
        'max_epochs': EPOCHS,
        'num_epochs_stage2': EPOCHS // 2,
        'val_interval': EPOCHS,
        'default_hooks.checkpoint.interval': 1,
    }
    return subprocess.Popen(
        [
            *[sys.executable, '-W', 'ignore', str(ROOT / 'tools/compare.py')],
            str(ROOT / 'configs/drawn/kd_student_rtmdet_teacher_drawn.py'),
            *['--seeds', '1', '--work-dir', str(folder), '--cfg-options', *as_arguments(options)],
        ],
        stderr=log,
        stdout=log,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def positions(folder):
    return {path.stat().st_mtime for path in folder.rglob('position.json')}


def test_a_comparison_survives_being_killed_at_any_moment(tmp_path):
    dice = random.Random(int(os.environ.get('SOAK_SEED', 0)))
    folder, data_root = tmp_path / 'compared', tmp_path / 'drawn'
    log = tmp_path / 'log'
    with log.open('w') as output:
        kills = 0
        while kills < KILLS:
            process, seen = start(folder, data_root, output), positions(folder)
            end = time.monotonic() + PATIENCE
            while process.poll() is None and not positions(folder) - seen:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            if process.poll() == 2:
                # The run of the killed comparison is still saving.
                assert 'another comparison is at work' in log.read_text()
                continue
            assert process.poll() is None, log.read_text()
            time.sleep(dice.uniform(0, 1.5))
            # After SIGKILL the child run has to notice that its parent is gone, and save.
            process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            process.wait()
            kills += 1
            print(f'kill {kills} of {KILLS}', flush=True)
        while start(folder, data_root, output).wait() == 2:
            assert 'another comparison is at work' in log.read_text()
    summary = json.loads((folder / 'comparison.json').read_text())
    assert summary['pairing']['same_first_weights']
    for side in SIDES:
        run = read_run(folder / 'seed_0' / side, 'val')
        assert [*run.epochs] == list(range(1, EPOCHS + 1))
        assert run.result is not None
