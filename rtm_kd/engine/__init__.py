from .hooks import DistillationLossDetachHook, SaveOnTerminationHook
from .optimizers import CpuAmpOptimWrapper

__all__ = ['CpuAmpOptimWrapper', 'DistillationLossDetachHook', 'SaveOnTerminationHook']
