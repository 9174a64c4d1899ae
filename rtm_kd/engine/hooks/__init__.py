from .check_ranks_hook import CheckRanksHook
from .distillation_loss_detach_hook import DistillationLossDetachHook
from .finite_loss_hook import FiniteLossHook
from .save_on_termination_hook import SaveOnTerminationHook

__all__ = [
    'CheckRanksHook',
    'DistillationLossDetachHook',
    'FiniteLossHook',
    'SaveOnTerminationHook',
]
