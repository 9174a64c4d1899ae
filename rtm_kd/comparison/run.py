"""Script of one run of a comparison: ``python -m rtm_kd.comparison.run``.

In its own process a run has its own peak of memory, and MMEngine's loggers and message hubs, of
which a process has one of each name.
"""

import argparse
import io
import os
import signal
import sys
import threading
from pathlib import Path

import torch

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.train import train
from rtm_kd.utils import UsageError, load_config, report_usage_errors
from rtm_kd.utils.checkpoint import newest_checkpoint, read_checkpoint, student_state_dict
from rtm_kd.utils.environment import machine, versions
from rtm_kd.utils.internals import images_per_batch

from .evaluation import evaluate
from .records import TRAINED, read_json, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='what to train, unless there is a checkpoint')
    parser.add_argument('detector', help='config of the detector to evaluate')
    parser.add_argument('work_dir')
    parser.add_argument('split', choices=['val', 'test'])
    parser.add_argument('--seed', type=int)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--checkpoint', help='evaluate this one alone')
    args = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with report_usage_errors():
        work_dir = Path(args.work_dir)
        checkpoint = args.checkpoint or _train(args.config, work_dir, args.seed, args.amp)
        cfg = load_config(args.detector)
        result = evaluate(cfg, checkpoint, args.split, str(work_dir / 'evaluation'))
        write_json(work_dir / f'{args.split}.json', result)


def _train(config: str, work_dir: Path, seed: int, amp: bool) -> str:
    """Train unless that is done, and return the last checkpoint."""
    done = work_dir / TRAINED
    if not done.is_file():
        runner = train(
            config,
            work_dir=str(work_dir),
            amp=amp,
            resume='auto',
            cfg_options={'randomness.seed': seed},
        )
        checkpoint = newest_checkpoint(str(work_dir))
        content = read_checkpoint(checkpoint) if checkpoint else {}
        if content.get('meta', {}).get('iter') != runner.max_iters:
            raise UsageError(
                f'{work_dir} has no checkpoint of the last iteration, {runner.max_iters}; check '
                'that default_hooks.checkpoint saves the last epoch, and that no hook ends the '
                'run before it'
            )
        student = io.BytesIO()
        torch.save(dict(state_dict=student_state_dict(content['state_dict'])), student)
        trained = dict(
            checkpoint=os.path.basename(checkpoint),
            checkpoint_bytes=os.path.getsize(checkpoint),
            student_bytes=student.tell(),
            batch_size=images_per_batch(runner.train_dataloader),
            gpu=torch.cuda.is_available(),
            machine=machine(),
            versions=versions(),
        )
        write_json(done, trained)
    return str(work_dir / read_json(done)['checkpoint'])


def _end_with_parent() -> None:
    """Save and stop when the comparison's process has ended."""
    # Nothing is written to stdin: reading returns when its other end is closed.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == '__main__':
    main()
