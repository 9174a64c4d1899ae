"""``mmcv._ext`` for an mmcv without compiled operators.

For: mmcv-lite 2.0.x, and mmcv 2.0.x built with ``MMCV_WITH_OPS=0``.
Fault: ``mmcv.ops`` imports the compiled module ``mmcv._ext`` immediately, so
``import mmdet.models`` fails although RTMDet calls only one of its operators, NMS.
Here: an import finder at the very end of ``sys.meta_path``. Python asks it only
after everything else has failed to find ``mmcv._ext``, so a compiled one wins.
Can go: when MMDetection and MMYOLO import ``mmcv.ops`` lazily.

Only the standard library is imported at the top: with the opt-in of
``python -m rtm_kd.compat enable`` this file runs at the start of every Python process.
"""

import importlib.abc
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def nms(boxes, scores, iou_threshold: float, offset: int = 0):
    """Greedy non-maximum suppression through torchvision.

    Args:
        boxes (Tensor): (N, 4) boxes as (x1, y1, x2, y2), in pixels.
        scores (Tensor): (N,) scores.
        iou_threshold (float): A box that overlaps a better one by more is dropped.
        offset (int): 1 if the last pixel belongs to the box, else 0.

    Returns:
        Tensor: (M,) int64 indices of the boxes kept, best score first.
    """
    from torchvision.ops import nms as torchvision_nms

    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision_nms(boxes, scores, iou_threshold)


def _operator(module: str, name: str) -> Callable:
    if name == 'nms':
        return nms

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f'the operator "{name}" exists only in a compiled mmcv, and the mmcv installed here '
            'has no operators. Install the full package, '
            '`pip uninstall mmcv-lite && pip install "mmcv>=2.0.0,<2.1.0"`, '
            'or use a model that does not need this operator.'
        )

    return missing


class StandInLoader(importlib.abc.Loader):
    """Loads a module whose attributes are made from its name and theirs by a function."""

    def __init__(self, make: Callable[[str, str], Any]) -> None:
        self.make = make

    def exec_module(self, module: ModuleType) -> None:
        def missing(name: str) -> Any:
            if name.startswith('__'):
                raise AttributeError(name)
            return self.make(module.__name__, name)

        module.__getattr__ = missing


class MmcvExtFinder(importlib.abc.MetaPathFinder):
    """Supplies ``mmcv._ext`` to an mmcv that has none."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == 'mmcv._ext':
            return ModuleSpec(fullname, StandInLoader(_operator), origin=__file__)
        return None


def applies() -> bool:
    # By name: the opt-in loads this file under another module name.
    return all(type(finder).__name__ != MmcvExtFinder.__name__ for finder in sys.meta_path)


def enable() -> None:
    sys.meta_path.append(MmcvExtFinder())
