import functools
from typing import Optional

import torch
from mmcv.cnn import ConvModule
from mmengine.logging import print_log
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtm_kd.utils.precision import cpu_has_bfloat16

# MMYOLO makes the one of the other in a distributed run; in eval mode both do the same.
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold_batch_norms(model: nn.Module, kept: set[str]) -> None:
    """Fold each BN into the convolution before it, in place.

    A convolution or a norm whose own output is recorded is left as it is.

    Args:
        model (nn.Module): A model in eval mode, made of ``ConvModule``.
        kept (set[str]): Dotted names of the modules that are recorded.
    """
    for name, module in model.named_modules():
        if not isinstance(module, ConvModule) or not module.with_norm:
            continue
        inner = {f'{name}.conv', f'{name}.{module.norm_name}'}
        if module.order[:2] != ('conv', 'norm') or inner & kept:
            continue
        if type(module.conv) is nn.Conv2d and isinstance(module.norm, _BATCH_NORMS):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.with_norm = False
            delattr(module, module.norm_name)


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
