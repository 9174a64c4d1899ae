"""Data loading workers that survive a SIGTERM until their run has saved a checkpoint."""

import atexit
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from typing import Optional

from torch.utils.data import DataLoader


def shield_workers(loaders: Iterable[DataLoader]) -> None:
    """Have the workers of data loaders ignore SIGTERM, which clusters send to them as well.

    At exit multiprocessing would end the workers of a failed run with SIGTERM and wait for them
    forever, so they are killed before.
    """
    for loader in loaders:
        loader.worker_init_fn = functools.partial(_ignore_sigterm, loader.worker_init_fn)
    atexit.unregister(_kill_workers)
    atexit.register(_kill_workers)


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
