from .hooks import (
    CheckRanksHook,
    DistillationLossDetachHook,
    FiniteLossHook,
    SaveOnTerminationHook,
)
from .optimizers import CpuAmpOptimWrapper

__all__ = [
    'CheckRanksHook',
    'CpuAmpOptimWrapper',
    'DistillationLossDetachHook',
    'FiniteLossHook',
    'SaveOnTerminationHook',
]
