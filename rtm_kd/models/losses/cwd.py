import torch
import torch.nn.functional as F
from torch import nn

from rtm_kd.registry import MODELS


def channel_wise_divergence(
    preds_S: torch.Tensor, preds_T: torch.Tensor, tau: float = 1.0
) -> torch.Tensor:
    r"""Divergence of the student's spatial attention from the teacher's, per channel.

    With :math:`\phi(y)_{c,i} = \exp(y_{c,i} / \tau) / \sum_j \exp(y_{c,j} / \tau)`, the
    softmax of channel :math:`c` over its :math:`W \cdot H` positions,

    .. math:: \frac{\tau^2}{C} \sum_{c=1}^{C} \sum_{i=1}^{W \cdot H}
              \phi(y^T)_{c,i} \log \frac{\phi(y^T)_{c,i}}{\phi(y^S)_{c,i}}

    averaged over the batch.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction",
    https://arxiv.org/abs/2011.13256, section 3.2.

    Args:
        preds_S (Tensor): Student's feature map, (N, C, H, W).
        preds_T (Tensor): Teacher's feature map, (N, C, H, W).
        tau (float): Temperature; above 1 the attention is spread wider.

    Returns:
        Tensor: The divergence, a scalar, zero where both attend alike.

    Raises:
        ValueError: If the shapes differ or are not (N, C, H, W).
    """
    if preds_S.dim() != 4 or preds_S.shape != preds_T.shape:
        raise ValueError(
            'channel-wise divergence compares two feature maps of one shape (N, C, H, W), got '
            f'{tuple(preds_S.shape)} from the student and {tuple(preds_T.shape)} from the teacher; '
            'let a connector map the one to the other'
        )
    N, C = preds_S.shape[:2]
    log_phi_S = F.log_softmax(preds_S.flatten(2) / tau, dim=-1)
    log_phi_T = F.log_softmax(preds_T.flatten(2) / tau, dim=-1)
    divergence = F.kl_div(log_phi_S, log_phi_T, reduction='sum', log_target=True)
    return divergence * tau**2 / (C * N)


@MODELS.register_module()
class ChannelWiseDivergence(nn.Module):
    """Channel-wise distillation loss, see :func:`channel_wise_divergence`.

    Args:
        tau (float): Temperature. Defaults to 1.0.
        loss_weight (float): Weight of the loss. Defaults to 1.0.
    """

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not tau > 0:
            raise ValueError(f'tau must be above 0, got {tau!r}')
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, preds_S: torch.Tensor, preds_T: torch.Tensor) -> torch.Tensor:
        """Return the weighted divergence of two (N, C, H, W) feature maps, a scalar."""
        return self.loss_weight * channel_wise_divergence(preds_S, preds_T, self.tau)
