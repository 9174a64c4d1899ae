from .hooks import (
    CheckRanksHook,
    DistillationLossDetachHook,
    DistillationWatchHook,
    FeatureVisualizationHook,
    FiniteLossHook,
    LoadStudentHook,
    SaveOnTerminationHook,
)
from .optimizers import CpuAmpOptimWrapper

__all__ = [
    'CheckRanksHook',
    'CpuAmpOptimWrapper',
    'DistillationLossDetachHook',
    'DistillationWatchHook',
    'FeatureVisualizationHook',
    'FiniteLossHook',
    'LoadStudentHook',
    'SaveOnTerminationHook',
]
