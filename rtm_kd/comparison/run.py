"""One run of a comparison, in a process of its own: ``python -m rtm_kd.comparison.run``.

A process of its own has its own peak of memory, and MMEngine's loggers and message hubs, of
which there is one of a name in each process, don't meet those of another run.
"""

import argparse
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.train import train
from rtm_kd.utils import UsageError, load_config, report_usage_errors
from rtm_kd.utils.checkpoint import newest_checkpoint, read_checkpoint, student_state_dict
from rtm_kd.utils.environment import machine, versions
from rtm_kd.utils.files import atomic_write

from .evaluation import evaluate

#: What a trained run leaves in its work dir, beside ``<split>.json`` of its evaluation.
TRAINED = 'trained.json'


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
    _end_with_parent()
    with report_usage_errors():
        work_dir = Path(args.work_dir)
        checkpoint = args.checkpoint
        if checkpoint is None:
            checkpoint = _trained(args.config, work_dir, args.seed, args.amp)
        began = time.time()
        cfg = load_config(args.detector)
        result = evaluate(cfg, checkpoint, args.split, str(work_dir / 'evaluation'))
        result['seconds'] = time.time() - began
        write_json(work_dir / f'{args.split}.json', result)


def _trained(config: str, work_dir: Path, seed: int, amp: bool) -> str:
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
                f'{work_dir} has no checkpoint of the last iteration, {runner.max_iters}; see that '
                'default_hooks.checkpoint saves the last epoch, and that no hook ends the run '
                'before it'
            )
        write_json(
            done,
            dict(
                checkpoint=os.path.basename(checkpoint),
                checkpoint_bytes=os.path.getsize(checkpoint),
                student_bytes=_bytes_of_weights(content['state_dict']),
                batch_size=runner.train_dataloader.batch_sampler.batch_size,
                gpu=torch.cuda.is_available(),
                machine=machine(),
                versions=versions(),
            ),
        )
    return str(work_dir / json.loads(done.read_text(encoding='utf-8'))['checkpoint'])


def _bytes_of_weights(state_dict: dict[str, torch.Tensor]) -> int:
    file = io.BytesIO()
    torch.save(dict(state_dict=student_state_dict(state_dict)), file)
    return file.tell()


def write_json(path: Path, content: Any) -> None:
    """Write a file that is there whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def _end_with_parent() -> None:
    """Save and stop when the comparison's process is gone, whatever ended it."""

    def wait() -> None:
        # Nothing is ever written to it: it ends when its other end does.
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == '__main__':
    main()
