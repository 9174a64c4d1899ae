import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from rtm_kd.registry import OPTIM_WRAPPERS
from rtm_kd.utils.precision import cpu_has_bfloat16


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU, where MMEngine's AmpOptimWrapper refuses to run.

    Forward passes run under bfloat16's autocast. bfloat16 has the exponents of float32, so
    that there is no loss to scale and no scaler to save: checkpoints are those of an
    OptimWrapper, and either kind of run goes on from the other's.

    Args:
        kwargs: As MMEngine's OptimWrapper takes them: ``optimizer``,
            ``accumulative_counts`` and ``clip_grad``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not cpu_has_bfloat16():
            print_log(
                'this processor has no bfloat16 of its own (AVX512-BF16 or AMX): mixed precision '
                'is emulated and slower than training without --amp',
                logger='current',
                level=logging.WARNING,
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Gradient accumulation's context, and autocast's.

        Args:
            model (nn.Module): The model that is trained.
        """
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
