"""The teacher's connector: a norm alone."""

from typing import Optional

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS

from .batch_statistics_norm import without_weights


@MODELS.register_module()
class NormConnector(BaseModule):
    """Normalises a feature map, as PKD does with the teacher's.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via
    Pearson Correlation Coefficient", https://arxiv.org/abs/2207.02039: both
    sides are brought to zero mean and unit variance before they are compared. With
    ``norm_cfg=dict(type='BN', affine=False, track_running_stats=False)`` mean and variance
    are those of each channel over the batch.

    Args:
        in_channels (int): Channels of the feature map.
        norm_cfg (dict): Norm layer.
        init_cfg (dict, optional): Initialisation of the weights.
    """

    def __init__(self, in_channels: int, norm_cfg: dict, init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'in_channels must be a positive integer, got {in_channels!r}')
        self.in_channels = in_channels
        self.norm = without_weights(build_norm_layer(norm_cfg, in_channels)[1])

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to the same shape."""
        return self.norm(feature)

    def split_norm(self) -> tuple[nn.Module, nn.Module]:
        """Return (what comes before the norm, the norm)."""
        return nn.Identity(), self.norm
