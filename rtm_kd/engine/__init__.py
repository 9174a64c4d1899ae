from .hooks import DistillationLossDetachHook

__all__ = ['DistillationLossDetachHook']
