from .hooks import DistillationLossDetachHook, FiniteLossHook, SaveOnTerminationHook
from .optimizers import CpuAmpOptimWrapper

__all__ = [
    'CpuAmpOptimWrapper',
    'DistillationLossDetachHook',
    'FiniteLossHook',
    'SaveOnTerminationHook',
]
