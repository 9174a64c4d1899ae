"""Hooks, the optimizer wrapper, and what surrounds a run."""

from . import hooks, optimizers

__all__ = ['hooks', 'optimizers']
