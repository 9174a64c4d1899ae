"""Configs of this package as a base: ``_base_ = 'rtm_kd::rtmdet/...'``.

For: mmengine <= 0.10.7.
Fault: MMEngine reads ``package::config`` for a list of packages that it knows by name alone.
Here: this package is put on the list, as soon as MMEngine has it.
Can go: when MMEngine asks the package instead of a list.

Only the standard library is imported at the top: with the opt-in of
``python -m rtm_kd.compat enable`` this file runs at the start of every Python process.
"""

import importlib.abc
import sys
from importlib.machinery import PathFinder
from types import ModuleType

MODULE = 'mmengine.config.utils'


def _put_on_the_list(utils: ModuleType) -> None:
    utils.MODULE2PACKAGE.setdefault('rtm_kd', 'rtm_kd')


class PackageConfigsFinder(importlib.abc.MetaPathFinder):
    """Finds the module that has the list as Python does, and has it changed when it is loaded."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            load = spec.loader.exec_module

            def load_and_put(module: ModuleType) -> None:
                load(module)
                _put_on_the_list(module)

            spec.loader.exec_module = load_and_put
        return spec


def enable() -> None:
    if MODULE in sys.modules:
        _put_on_the_list(sys.modules[MODULE])
    # By name: the opt-in loads this file under another module name.
    elif not any(
        type(finder).__name__ == PackageConfigsFinder.__name__ for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, PackageConfigsFinder())
