"""A checkpoint when a cluster terminates the run, and resuming from it inside an epoch."""

import atexit
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Optional

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Sampler

from rtm_kd.registry import HOOKS
from rtm_kd.utils.internals import built_loops, images_per_batch, is_resuming


@HOOKS.register_module()
class SaveOnTerminationHook(Hook):
    """Save a checkpoint on SIGTERM and exit; ``--resume`` continues inside the epoch.

    The current iteration is finished, then ``terminated.pth`` is written and the process exits with
    status 143. A run that resumes from it trains on the rest of the epoch's images, or validates
    first if a validation was interrupted. In a distributed run a signal to one process is enough.

    Args:
        interval (int): Iterations between two agreements among the processes of a distributed
            run, each of which waits for the GPU once. Defaults to 10.
    """

    # After everything that belongs to the iteration, such as EMA and the schedulers.
    priority = 'LOWEST'

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._asked = False
        self._previous: Optional[Callable] = None
        # What the resumed run did of this epoch, in images and in iterations.
        self._resumed_samples = 0
        self._done = 0
        self._validation_due = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            meta = checkpoint.get('meta', {})
            self._resumed_samples = meta.get('samples_of_epoch', 0)
            self._validation_due = meta.get('validation_due', False)

    def before_train(self, runner: Runner) -> None:
        # Python handles signals in the main thread only; a run in another one ignores SIGTERM.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        # A cluster sends SIGTERM to the workers as well.
        for loop in built_loops(runner):
            loader = loop.dataloader
            loader.worker_init_fn = functools.partial(_ignore_sigterm, loader.worker_init_fn)
        # At exit multiprocessing would end the workers of a failed run with SIGTERM, which they
        # ignore, and wait for them forever.
        atexit.unregister(_kill_workers)
        atexit.register(_kill_workers)
        if self._validation_due and runner.val_loop is not None:
            self._validation_due = False
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        loader = runner.train_loop.dataloader
        # From images: this run may have another batch size or number of processes.
        batch_size = images_per_batch(loader)
        self._done = self._resumed_samples // (batch_size * dist.get_world_size())
        self._resumed_samples = 0
        if self._done > 0:
            batches = loader.batch_sampler
            batches.sampler = SkipFirstSamples(batches.sampler, self._done * batch_size)
            runner.logger.info(
                f'Epoch {runner.epoch + 1}: resumed after its first {self._done} iterations'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        batches = runner.train_loop.dataloader.batch_sampler
        if isinstance(batches.sampler, SkipFirstSamples):
            batches.sampler = batches.sampler.sampler

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if self._agreed(self.every_n_train_iters(runner, self.interval)):
            done = self._done + batch_idx + 1
            samples = done * images_per_batch(runner.train_dataloader) * dist.get_world_size()
            self._save_and_exit(
                runner, epoch=runner.epoch, iter=runner.iter + 1, samples_of_epoch=samples
            )

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if self._agreed(self.every_n_inner_iters(batch_idx, self.interval)):
            # EMAHook has swapped in its averaged weights for the validation.
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)
            # Both counters are at the end of the epoch already.
            self._save_and_exit(runner, epoch=runner.epoch, iter=runner.iter, validation_due=True)

    def after_train(self, runner: Runner) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def _agreed(self, at_interval: bool) -> bool:
        """Return whether to exit now, the same on every process."""
        if dist.is_distributed():
            if not at_interval:
                return False
            asked = torch.tensor(float(self._asked))
            dist.all_reduce(asked, 'max')
            self._asked = bool(asked)
        return self._asked

    def _save_and_exit(self, runner: Runner, **meta: Any) -> None:
        runner.save_checkpoint(runner.work_dir, 'terminated.pth', meta=meta)
        if dist.is_main_process():
            path = os.path.join(runner.work_dir, 'terminated.pth')
            with open(os.path.join(runner.work_dir, 'last_checkpoint'), 'w') as file:
                file.write(path)
            runner.logger.warning(
                f'SIGTERM: saved {path} after iteration {meta["iter"]}; continue with --resume'
            )
        # Whichever process exits first, its launcher ends the others, also one that writes.
        dist.barrier()
        sys.exit(128 + signal.SIGTERM)


def _ignore_sigterm(init: Optional[Callable], worker_id: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if init is not None:
        init(worker_id)


def _kill_workers() -> None:
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        # Or torch reports their end as another failure.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()


class SkipFirstSamples(Sampler):
    """A sampler without its first samples, but of the same length, which counts an epoch."""

    def __init__(self, sampler: Sampler, start: int) -> None:
        self.sampler = sampler
        self.start = start
        # MMDetection's batch samplers look images up in it.
        self.dataset = getattr(sampler, 'dataset', None)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.sampler, self.start, None)
