"""Inert stand-ins for the quantization half of MMRazor.

For: mmrazor 1.0.0 with torch >= 2.0.
Fault: its quantization modules import names that torch has since dropped, and
``mmrazor.models`` and ``mmrazor.engine`` import those modules, so neither can be
imported (MMRazor #615, #632). Distillation does not need them.
Here: an import finder for just those modules. Their classes exist, so that the imports
succeed, and raise ``NotImplementedError`` when instantiated.
Can go: when a newer MMRazor imports on today's torch.
"""

import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version

from .mmcv_ext import StandInLoader

_MODULES = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.observers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)


def _stand_in(module: str, name: str) -> type:
    def refuse(self, *args, **kwargs):
        raise NotImplementedError(
            f'{module}.{name} belongs to the quantization of MMRazor 1.0.0, '
            'which does not work with torch 2.0 or later.'
        )

    return type(name, (), {'__init__': refuse, '__module__': module})


class MmrazorQuantizationFinder(importlib.abc.MetaPathFinder):
    """Supplies the quantization modules of MMRazor, and nothing else."""

    def find_spec(self, fullname, path=None, target=None):
        if any(f'{fullname}.'.startswith(f'{name}.') for name in _MODULES):
            loader = StandInLoader(_stand_in)
            return ModuleSpec(fullname, loader, origin=__file__, is_package=True)
        return None


def applies() -> bool:
    try:
        return version('mmrazor') == '1.0.0'
    except PackageNotFoundError:
        return False


def enable() -> None:
    # In front: the real modules can be found, they just can't be executed.
    sys.meta_path.insert(0, MmrazorQuantizationFinder())
