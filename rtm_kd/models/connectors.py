"""The connectors: what a feature map passes before it is compared."""

from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS
from rtm_kd.utils.errors import UsageError


class BatchStatisticsNorm(nn.Module):
    """The norm of PKD: zero mean and unit variance per channel, by the statistics of the batch.

    Computes what ``BatchNorm2d(affine=False, track_running_stats=False)`` does, and is no
    BatchNorm to others: MMYOLO's YOLOv5OptimizerConstructor hands the weight of each of those
    to the optimizer, and this one has none. ``eps`` is added to the variance.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W) over N, H and W."""
        return F.batch_norm(feature, None, None, training=True, eps=self.eps)

    def extra_repr(self) -> str:
        return f'eps={self.eps}'


def _without_weights(norm: nn.Module) -> nn.Module:
    """Return a :class:`BatchStatisticsNorm` for a BN that has neither weights nor statistics."""
    if type(norm) is nn.BatchNorm2d and not norm.affine and not norm.track_running_stats:
        return BatchStatisticsNorm(norm.eps)
    return norm


def _check_channels(**channels: Any) -> None:
    for name, number in channels.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f'{name} must be a positive integer, got {number!r}')


@MODELS.register_module()
class ConvModuleConnector(BaseModule):
    """The student's connector: a convolution to the teacher's channels, norm and activation.

    Takes the arguments of MMRazor's connector of this name, gives the same numbers, and
    names its weights the same.

    Args:
        in_channel (int): Channels of the feature map that comes in.
        out_channel (int): Channels of the one that goes out.
        kernel_size (int | tuple[int]): Of the convolution. Defaults to 1.
        init_cfg (dict, optional): Initialisation of the weights.
        args, layers: The other arguments of :class:`mmcv.cnn.ConvModule`, in its order or by name:
            ``stride``, ``bias``, ``norm_cfg=None`` for no norm, ``act_cfg=dict(type='ReLU')`` and
            so on.

    Raises:
        ValueError: If a number of channels is not a positive integer.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        kernel_size: Union[int, tuple[int, int]] = 1,
        *args: Any,
        init_cfg: Optional[dict] = None,
        **layers: Any,
    ) -> None:
        super().__init__(init_cfg)
        _check_channels(in_channel=in_channel, out_channel=out_channel)
        for name in ('in_channels', 'out_channels'):
            if name in layers:
                raise UsageError(f'ConvModuleConnector has no {name}; write {name[:-1]}')
        self.in_channels = in_channel
        self.conv_module = ConvModule(in_channel, out_channel, kernel_size, *args, **layers)
        if self.conv_module.with_norm:
            norm = _without_weights(self.conv_module.norm)
            setattr(self.conv_module, self.conv_module.norm_name, norm)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channel, H, W) to (N, out_channel, H', W')."""
        return self.conv_module(feature)

    def split_norm(self) -> Optional[tuple[nn.Module, nn.Module]]:
        """Return (what comes before the norm, the norm) if the norm comes last, else None."""
        module = self.conv_module
        if (
            module.with_norm
            and not module.with_activation
            and not module.with_explicit_padding
            and module.order.index('conv') < module.order.index('norm')
        ):
            return module.conv, module.norm
        return None


@MODELS.register_module()
class NormConnector(BaseModule):
    """The teacher's connector: a norm alone, as PKD puts behind the teacher's feature maps.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", https://arxiv.org/abs/2207.02039: both sides are brought to zero mean
    and unit variance before they are compared. With ``norm_cfg=dict(type='BN', affine=False,
    track_running_stats=False)`` mean and variance are those of each channel over the batch.

    Args:
        in_channels (int): Channels of the feature map.
        norm_cfg (dict): Norm layer.
        init_cfg (dict, optional): Initialisation of the weights.

    Raises:
        ValueError: If ``in_channels`` is not a positive integer.
    """

    def __init__(self, in_channels: int, norm_cfg: dict, init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        _check_channels(in_channels=in_channels)
        self.in_channels = in_channels
        self.norm = _without_weights(build_norm_layer(norm_cfg, in_channels)[1])

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to the same shape."""
        return self.norm(feature)

    def split_norm(self) -> tuple[nn.Module, nn.Module]:
        """Return (what comes before the norm, the norm)."""
        return nn.Identity(), self.norm
