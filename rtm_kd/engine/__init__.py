from .hooks import (
    CheckRanksHook,
    DistillationLossDetachHook,
    FeatureVisualizationHook,
    FiniteLossHook,
    SaveOnTerminationHook,
)
from .optimizers import CpuAmpOptimWrapper

__all__ = [
    'CheckRanksHook',
    'CpuAmpOptimWrapper',
    'DistillationLossDetachHook',
    'FeatureVisualizationHook',
    'FiniteLossHook',
    'SaveOnTerminationHook',
]
