"""The optimizer wrapper of mixed precision on a CPU."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from rtm_kd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU, where MMEngine's AmpOptimWrapper refuses to run.

    Forward passes run in bfloat16 autocast. bfloat16 has the exponents of float32, so there is no
    loss scale to adapt or save: checkpoints are those of an OptimWrapper, and either kind of run
    resumes from the other's. It takes the arguments of an OptimWrapper.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not cpu_has_bfloat16():
            print_log(
                'this CPU has no native bfloat16 (AVX512-BF16 or AMX): mixed precision '
                'is emulated and slower than training without --amp',
                logger='current',
                level=logging.WARNING,
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter the contexts of gradient accumulation and of autocast."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def cpu_has_bfloat16() -> bool:
    """Return whether the processor has AVX512-BF16 or AMX; elsewhere bfloat16 is emulated."""
    try:
        flags = Path('/proc/cpuinfo').read_text(encoding='utf-8').split()
    except OSError:
        return False
    return not {'avx512_bf16', 'amx_bf16'}.isdisjoint(flags)
