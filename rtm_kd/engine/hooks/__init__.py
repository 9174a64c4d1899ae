from .distillation_loss_detach_hook import DistillationLossDetachHook

__all__ = ['DistillationLossDetachHook']
