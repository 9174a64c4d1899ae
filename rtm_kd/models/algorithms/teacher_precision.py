"""The precision in which the teacher runs."""

import functools
from typing import Optional

import torch
from mmengine.logging import print_log

from rtm_kd.utils.precision import cpu_has_bfloat16


def half_precision(device: torch.device) -> torch.dtype:
    """Return the fastest dtype that the device computes natively, for features alone.

    float16 on a CUDA device, whose eleven bits of mantissa are closer to float32 than
    bfloat16's eight; bfloat16 on a processor with AVX512-BF16 or AMX; else float32, which
    is logged once.
    """
    if device.type == 'cuda':
        return torch.float16
    if device.type == 'cpu' and cpu_has_bfloat16():
        return torch.bfloat16
    _log_once(f'the teacher runs in float32: no native half precision on this {device.type}')
    return torch.float32


def autocast_dtype(device: torch.device) -> Optional[torch.dtype]:
    """Return the dtype of the mixed precision that is on for the device, None if it is off."""
    if hasattr(torch, 'get_autocast_dtype'):
        on = torch.is_autocast_enabled(device.type)
        return torch.get_autocast_dtype(device.type) if on else None
    if device.type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


@functools.cache
def _log_once(message: str) -> None:
    print_log(message, logger='current')
