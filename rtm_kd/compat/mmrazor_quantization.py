"""Inert stand-ins for the quantization half of MMRazor.

For: mmrazor 1.0.0 with torch >= 2.0.
Fault: its quantization modules import names that torch has since dropped, and
``mmrazor.models`` and ``mmrazor.engine`` import those modules, so neither can be
imported (MMRazor #615, #632). Distillation needs nothing of them.
Here: an import finder that answers for just those modules. A class taken from one
exists, so that the imports go through, and raises ``NotImplementedError`` when made.
Can go: when a newer MMRazor imports on today's torch.
"""

import importlib.abc
import importlib.machinery
import sys
from importlib.metadata import PackageNotFoundError, version

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


class _Loader(importlib.abc.Loader):
    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        def missing(name: str):
            if name.startswith('__'):
                raise AttributeError(name)
            return _stand_in(module.__name__, name)

        module.__all__ = []
        module.__path__ = []
        module.__getattr__ = missing


class MmrazorQuantizationFinder(importlib.abc.MetaPathFinder):
    """Answers for the quantization modules of MMRazor, and for nothing else."""

    def find_spec(self, fullname, path=None, target=None):
        if any(fullname == name or fullname.startswith(name + '.') for name in _MODULES):
            return importlib.machinery.ModuleSpec(
                fullname, _Loader(), origin=__file__, is_package=True
            )
        return None


def applies() -> bool:
    try:
        return version('mmrazor') == '1.0.0'
    except PackageNotFoundError:
        return False


def enable() -> None:
    # In front: the real modules can be found, they only can't be executed.
    sys.meta_path.insert(0, MmrazorQuantizationFinder())
