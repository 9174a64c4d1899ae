"""Configs of this package as a base: ``_base_ = 'rtm_kd::rtmdet/...'``.

For: mmengine <= 0.10.7.
Fault: MMEngine reads ``package::config`` only for a fixed list of packages, and looks for the
configs of one that is installed with ``pip install -e`` in site-packages.
Here: this package and its folder are added as soon as MMEngine is loaded.
Can go: when MMEngine asks the package itself.

Only the standard library is imported at the top: with the opt-in of
``python -m rtm_kd.compat enable`` this file runs at the start of every Python process.
"""

import importlib.abc
import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType

PACKAGE = 'rtm_kd'
# They read package::config.
MODULES = ('mmengine.config.config', 'mmengine.hub.hub')
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _add_package(module: ModuleType) -> None:
    sys.modules['mmengine.config.utils'].MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)
    installed_path = module.get_installed_path
    module.get_installed_path = lambda name: _FOLDER if name == PACKAGE else installed_path(name)


class PackageConfigsFinder(importlib.abc.MetaPathFinder):
    """Finds these modules as Python does, and adds this package once they are loaded."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in MODULES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            load = spec.loader.exec_module

            def load_and_add(module: ModuleType) -> None:
                load(module)
                _add_package(module)

            spec.loader.exec_module = load_and_add
        return spec


def applies() -> bool:
    # By name: the opt-in loads this file under another module name.
    return all(type(finder).__name__ != PackageConfigsFinder.__name__ for finder in sys.meta_path)


def enable() -> None:
    for name in MODULES:
        if name in sys.modules:
            _add_package(sys.modules[name])
    sys.meta_path.insert(0, PackageConfigsFinder())
