from .hooks import DistillationLossDetachHook, SaveOnTerminationHook

__all__ = ['DistillationLossDetachHook', 'SaveOnTerminationHook']
