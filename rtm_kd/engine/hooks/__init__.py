from .distillation_loss_detach_hook import DistillationLossDetachHook
from .save_on_termination_hook import SaveOnTerminationHook

__all__ = ['DistillationLossDetachHook', 'SaveOnTerminationHook']
