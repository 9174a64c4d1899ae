"""The channels_last memory format, except for a convolution that CPUs can't train in it.

For: torch 2.14.1 with oneDNN 3.12, and every other torch whose oneDNN has the fault.
Fault: in channels_last, the weight gradient of a strided 1x1 convolution with fewer than 16 input
channels writes past its memory (https://github.com/uxlfoundation/oneDNN/issues/6035). YOLOv6
begins with one, and its training dies with "corrupted size vs. prev_size" or a segmentation fault.
Here: :func:`to_channels_last` leaves such a convolution and its input contiguous.
Can go: when the oldest supported torch has an oneDNN without the fault.
"""

import torch
from torch import nn

# oneDNN's block with AVX-512; 8 with AVX2.
_BLOCK = 16


def to_channels_last(model: nn.Module) -> None:
    """Convert a model that is to be trained to the channels_last memory format, in place."""
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.in_channels // module.groups < _BLOCK
        ):
            module.to(memory_format=torch.contiguous_format)
            module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, args: tuple) -> tuple:
    return tuple(arg.contiguous() for arg in args)
