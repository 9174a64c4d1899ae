"""Batch norms folded into convolutions."""

from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# MMYOLO makes the one of the other in a distributed run; in eval mode both do the same.
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold_batch_norms(model: nn.Module, kept: set[str]) -> None:
    """Fold each BN into the convolution before it, in place.

    A convolution or a norm whose own output is recorded is left as it is.

    Args:
        model (nn.Module): A model in eval mode, made of ``ConvModule``.
        kept (set[str]): Dotted names of the modules that are recorded.
    """
    # Not by name: the levels of RTMDet's head share convolutions.
    recorded = {id(model.get_submodule(name)) for name in kept}
    for module in model.modules():
        if not isinstance(module, ConvModule) or not module.with_norm:
            continue
        inner = {id(module.conv), id(module.norm)}
        if module.order[:2] != ('conv', 'norm') or inner & recorded:
            continue
        if type(module.conv) is nn.Conv2d and isinstance(module.norm, _BATCH_NORMS):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.with_norm = False
            delattr(module, module.norm_name)
