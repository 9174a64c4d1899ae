"""Records of a run that a comparison reads: weights, images, times, memory and metrics."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from rtm_kd.registry import HOOKS
from rtm_kd.utils.files import write_text
from rtm_kd.utils.internals import unwrap_model

#: File in the work dir with a line for each start, epoch and evaluation.
RECORDS = 'records.jsonl'
#: File in the work dir with the current iteration.
POSITION = 'position.json'
# Every so many rows and columns of an image are hashed: enough to notice another crop, flip or
# colour, while hashing every pixel would cost a GPU some ten milliseconds an iteration.
_STRIDE = 8
_SECONDS_BETWEEN_POSITIONS = 1.0


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write what two runs are compared by, across interruptions.

    Each line of ``records.jsonl`` in the work dir is one of

    - ``{'begin': iteration, 'epoch', 'max_epochs', 'max_iters', 'train_images', 'student',
      'time'}``, with the number of images and a digest of the student's weights;
    - ``{'epoch': number, 'seconds', 'iters', 'images', 'memory', 'time'}``, with the seconds of
      training without evaluation, a digest of the images that the model got, and the
      :func:`peak_memory` so far;
    - ``{'val': epoch, 'metrics'}``.

    Epochs are counted from 1; ``time`` is a Unix time.
    """

    # The clock stops before the checkpoint of an epoch is saved.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        self._begin = dict(
            begin=runner.iter,
            epoch=runner.epoch,
            max_epochs=runner.max_epochs,
            max_iters=runner.max_iters,
            train_images=len(runner.train_dataloader.dataset),
            student=digest_of_student(runner.model),
            time=time.time(),
        )
        self._write(runner, self._begin)
        self._write_position(runner, runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        self._images = hashlib.blake2b(digest_size=16)
        self._first = runner.iter
        self._started = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        inputs = data_batch['inputs']
        for image in [inputs] if isinstance(inputs, torch.Tensor) else inputs:
            self._images.update(str(tuple(image.shape)).encode())
            self._images.update(_bytes(image[..., ::_STRIDE, ::_STRIDE]))

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if time.time() - self._written >= _SECONDS_BETWEEN_POSITIONS:
            self._write_position(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._write(
            runner,
            dict(
                epoch=runner.epoch + 1,
                seconds=time.perf_counter() - self._started,
                iters=runner.iter - self._first,
                images=self._images.hexdigest(),
                memory=peak_memory(),
                time=time.time(),
            ),
        )
        self._write_position(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        self._write(runner, dict(val=runner.epoch, metrics=metrics))

    def _write(self, runner: Runner, record: dict) -> None:
        with Path(runner.work_dir, RECORDS).open('a', encoding='utf-8') as file:
            # A kill may have cut the last line off.
            file.write('\n' + json.dumps(record))

    def _write_position(self, runner: Runner, done: int) -> None:
        self._written = time.time()
        position = dict(self._begin, iter=done, now=self._written)
        write_text(Path(runner.work_dir, POSITION), json.dumps(position))


def digest_of_student(model: nn.Module) -> str:
    """Return a digest of the weights and buffers of a model, or of a distillation's student."""
    model = unwrap_model(model)
    student = getattr(model, 'architecture', model)
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(student.state_dict().items()):
        digest.update(f'{name} {tuple(value.shape)}'.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def peak_memory() -> int:
    """Return the peak memory of this process in bytes, that of the GPU if there is one.

    Without a GPU it is the resident memory, with code and without data loading processes. It is
    unknown on Windows, and 0.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        # getrusage would include the process that started this one.
        status = Path('/proc/self/status').read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.split('\n') if line.startswith('VmHWM')
        )
    except (OSError, StopIteration):
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == 'darwin' else peak * 1024
