"""Tracing of a network, the first step of both formats."""

import warnings
from typing import Any

import torch

from rtm_kd.utils.errors import UsageError

from .network import DetectionNetwork


def traced(network: DetectionNetwork) -> Any:
    """Return a network as a TorchScript program, for any number and size of images.

    Raises:
        ValueError: If this torch can't compute it on a CPU in the network's precision, or an
            ordinary image exceeds the range of float16.
    """
    example = example_images(network)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # About assertions that a trace leaves out, and about torch's newer formats.
            warnings.simplefilter('ignore')
            program = torch.jit.trace(network, example, check_trace=False)
            outputs = program(example)
    except RuntimeError as error:
        if network.dtype == torch.float32 or 'Half' not in str(error):
            raise
        raise UsageError(
            f'--half: torch {torch.__version__} does not compute in float16 on a CPU, which '
            'the export needs to; leave --half out, or export with a newer torch'
        ) from error
    if network.dtype == torch.float16 and not all(output.isfinite().all() for output in outputs):
        raise UsageError(
            "--half: the network's values exceed the range of float16; leave --half out"
        )
    return program


def example_images(network: DetectionNetwork) -> torch.Tensor:
    """Return an image of noise that a network takes, uint8 of shape (1, 3, 64, 96) or larger.

    Small because float16 on a CPU is slow, and not square so that height and width differ.
    """
    generator = torch.Generator().manual_seed(0)
    size = (1, 3, 2 * network.stride, 3 * network.stride)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8)
