"""Export of a detector to files that need none of the packages it was trained with."""

from .network import DetectionNetwork, Selection
from .onnx_graph import to_onnx
from .torchscript import to_torchscript

__all__ = ['DetectionNetwork', 'Selection', 'to_onnx', 'to_torchscript']
