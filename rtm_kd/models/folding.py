"""Batch norms folded into convolutions."""

from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# MMYOLO makes the one of the other in a distributed run; in eval mode both do the same.
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold_batch_norms(model: nn.Module, kept: set[str]) -> None:
    """Fold each BN of a model in eval mode into the convolution of its ``ConvModule``, in place.

    What is in ``kept``, the dotted names of the modules that are recorded, is left as it is.
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
