"""The hooks of training and comparison."""

from .check_ranks_hook import CheckRanksHook
from .distillation_loss_detach_hook import DistillationLossDetachHook
from .distillation_watch_hook import DistillationWatchHook
from .feature_visualization_hook import FeatureVisualizationHook
from .finite_loss_hook import FiniteLossHook
from .paired_randomness_hook import PairedRandomnessHook
from .run_record_hook import RunRecordHook
from .save_on_termination_hook import SaveOnTerminationHook

__all__ = [
    'CheckRanksHook',
    'DistillationLossDetachHook',
    'DistillationWatchHook',
    'FeatureVisualizationHook',
    'FiniteLossHook',
    'PairedRandomnessHook',
    'RunRecordHook',
    'SaveOnTerminationHook',
]
