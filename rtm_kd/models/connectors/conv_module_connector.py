"""The student's connector: a convolution to the teacher's channels."""

from typing import Optional, Union

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS

from .batch_statistics_norm import without_weights


@MODELS.register_module()
class ConvModuleConnector(BaseModule):
    """Maps the student's channels to the teacher's: convolution, norm, activation.

    Takes the arguments of MMRazor's connector of this name, gives the same numbers, and
    names its weights the same.

    Args:
        in_channel (int): Channels of the feature map that comes in.
        out_channel (int): Channels of the one that goes out.
        kernel_size, stride, padding, dilation, groups: As in :class:`torch.nn.Conv2d`.
        bias (bool | str): ``'auto'`` adds a bias where there is no norm.
        conv_cfg (dict, optional): Convolution layer. Defaults to None, Conv2d.
        norm_cfg (dict, optional): Norm layer. Defaults to None, no norm.
        act_cfg (dict, optional): Activation layer, None for no activation.
            Defaults to ``dict(type='ReLU')``.
        inplace (bool): Whether the activation works in place.
        with_spectral_norm (bool): Whether the convolution gets a spectral norm.
        padding_mode (str): ``'zeros'``, ``'circular'`` or ``'reflect'``.
        order (tuple[str]): Order of ``'conv'``, ``'norm'`` and ``'act'``.
        init_cfg (dict, optional): Initialisation of the weights.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        kernel_size: Union[int, tuple[int, int]] = 1,
        stride: Union[int, tuple[int, int]] = 1,
        padding: Union[int, tuple[int, int]] = 0,
        dilation: Union[int, tuple[int, int]] = 1,
        groups: int = 1,
        bias: Union[str, bool] = 'auto',
        conv_cfg: Optional[dict] = None,
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = dict(type='ReLU'),
        inplace: bool = True,
        with_spectral_norm: bool = False,
        padding_mode: str = 'zeros',
        order: tuple = ('conv', 'norm', 'act'),
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, channels in (('in_channel', in_channel), ('out_channel', out_channel)):
            if not isinstance(channels, int) or channels < 1:
                raise ValueError(f'{name} must be a positive integer, got {channels!r}')
        self.in_channels = in_channel
        self.conv_module = ConvModule(
            in_channel,
            out_channel,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            conv_cfg,
            norm_cfg,
            act_cfg,
            inplace,
            with_spectral_norm,
            padding_mode,
            order,
        )
        if self.conv_module.with_norm:
            norm = without_weights(self.conv_module.norm)
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
