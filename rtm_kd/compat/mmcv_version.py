"""Any mmcv from 2.0 on with MMDetection, MMYOLO and MMRazor.

For: mmdet 3.x, mmyolo 0.6 and mmrazor 1.0 with mmcv from 2.1 on, and onedl-mmcv 2.3.
Fault: each asserts on import that mmcv is older than 2.1 or 2.2, though it runs with later ones.
Here: while one of them is imported, a later mmcv 2.x reports version 2.0.1.
Can go: when MMYOLO accepts them.

Only the standard library is imported at the top: with the opt-in of
``python -m rtm_kd.compat enable`` this file runs at the start of every Python process.
"""

import importlib.abc
import re
import sys
from types import ModuleType

PACKAGES = ('mmdet', 'mmyolo', 'mmrazor')


class MmcvVersionFinder(importlib.abc.MetaPathFinder):
    """Finds these packages as Python does, and shows them another version of mmcv."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in PACKAGES:
            return None
        # An editable install has a finder of its own; a finder of before Python 3.4 can't be asked.
        others = [f for f in sys.meta_path if f is not self and hasattr(f, 'find_spec')]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_with_older(module: ModuleType) -> None:
                import mmcv

                version = mmcv.__version__
                if re.match(r'2\.[1-9]', version):
                    mmcv.__version__ = '2.0.1'
                try:
                    load(module)
                finally:
                    mmcv.__version__ = version

            spec.loader.exec_module = load_with_older
        return spec


def applies() -> bool:
    # By name: the opt-in loads this file under another module name.
    return all(type(finder).__name__ != MmcvVersionFinder.__name__ for finder in sys.meta_path)


def enable() -> None:
    sys.meta_path.insert(0, MmcvVersionFinder())
