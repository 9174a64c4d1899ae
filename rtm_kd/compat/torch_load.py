"""MMEngine's checkpoints under ``torch.load(weights_only=True)``.

For: torch >= 2.6 with mmengine <= 0.10.7.
Fault: torch made ``weights_only=True`` the default, MMEngine passes nothing, and every
training checkpoint of MMEngine carries its message hub (``HistoryBuffer`` objects with
numpy arrays and numpy scalars), so that resuming, testing and published weights all fail.
Here: torch is told that those few types are safe. ``getattr``, which a pickled
``HistoryBuffer`` names to find its own statistics, is replaced with a function that can
reach these and nothing else; loading still executes nothing that the file brings.
Can go: when MMEngine registers its own types.
"""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_buffer_statistic(owner: type, name: str):
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'this checkpoint asks for the attribute {name!r} of {owner!r}, refused')
    return getattr(owner, name)


def enable() -> None:
    if tuple(int(n) for n in torch.__version__.split('.')[:2]) < (2, 6):
        return
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    dtypes = {type(np.dtype(code)) for code in np.typecodes['All']}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *dtypes,
            # Both names of numpy's module: files were written under numpy 1 and numpy 2.
            *(
                (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
                for name in ('_reconstruct', 'scalar')
                for core in ('core', '_core')
            ),
            (_history_buffer_statistic, 'builtins.getattr'),
        ]
    )
