"""Distilling RTMDet and its MMYOLO relatives."""

from .interrupts import name_stop_while_importing

name_stop_while_importing()

from . import compat  # noqa: E402

# Before all else: what follows imports packages that need the fixes.
compat.enable()

from . import engine, models, registry  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'engine', 'models', 'registry']
