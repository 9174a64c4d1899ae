"""The norm of PKD: a batch norm without weights or running statistics."""

import torch
import torch.nn.functional as F
from torch import nn


class BatchStatisticsNorm(nn.Module):
    """Zero mean and unit variance per channel, by the statistics of the batch.

    Computes what ``BatchNorm2d(affine=False, track_running_stats=False)`` does, and is no
    BatchNorm to others: MMYOLO's YOLOv5OptimizerConstructor hands the weight of each of those
    to the optimizer, and this one has none.

    Args:
        eps (float): Added to the variance.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W) over N, H and W."""
        return F.batch_norm(feature, None, None, training=True, eps=self.eps)

    def extra_repr(self) -> str:
        return f'eps={self.eps}'


def without_weights(norm: nn.Module) -> nn.Module:
    """Return a :class:`BatchStatisticsNorm` for a BN that has neither weights nor statistics."""
    if type(norm) is nn.BatchNorm2d and not norm.affine and not norm.track_running_stats:
        return BatchStatisticsNorm(norm.eps)
    return norm
