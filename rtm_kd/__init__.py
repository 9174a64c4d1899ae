"""Distilling RTMDet and its MMYOLO relatives."""

from .startup import end_with_launcher, have_a_home, name_stop_while_importing

name_stop_while_importing()
end_with_launcher()
have_a_home()

from . import compat  # noqa: E402

# Before all else: what follows imports packages that need the fixes.
compat.enable()

from . import engine, models, registry  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'engine', 'models', 'registry']
