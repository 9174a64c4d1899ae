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
    _check_shapes(preds_S, preds_T)
    N, C = preds_S.shape[:2]
    log_phi_S = F.log_softmax(preds_S.flatten(2) / tau, dim=-1)
    log_phi_T = F.log_softmax(preds_T.flatten(2) / tau, dim=-1)
    divergence = F.kl_div(log_phi_S, log_phi_T, reduction='sum', log_target=True)
    return divergence * tau**2 / (C * N)


def pkd_channel_wise_divergence(
    preds_S: torch.Tensor,
    preds_T: torch.Tensor,
    tau: float = 1.0,
    eps_S: float = 1e-5,
    eps_T: float = 1e-5,
) -> torch.Tensor:
    r"""PKD's normalisation and :func:`channel_wise_divergence` in one.

    With :math:`\hat z` the feature map :math:`z` at zero mean and unit variance per channel
    over the batch, the result is the divergence of :math:`\hat z^S` and :math:`\hat z^T`.
    A softmax does not change when a constant is added, so of the normalisation only the
    scale :math:`1 / \sqrt{\sigma^2 + \epsilon}` reaches the divergence. Its gradient is a
    difference of two softmaxes, which sums to zero over the positions, so that

    .. math:: g = \phi(\hat z^S) - \phi(\hat z^T), \qquad
              \frac{\partial}{\partial z^S} = \frac{\tau}{N C \sqrt{\sigma_S^2 + \epsilon}}
              \left( g - \hat z^S \, \overline{g \hat z^S} \right)

    where the bar is the mean over batch and positions. Both are computed at once, in
    float32, a few images at a time: one tensor of the size of ``preds_S`` is kept for the
    backward pass, in float32, and none of the teacher's.

    Args:
        preds_S (Tensor): Student's feature map before its norm, (N, C, H, W).
        preds_T (Tensor): Teacher's feature map before its norm, (N, C, H, W). Where it needs
            a gradient, both are computed one after the other, by autograd.
        tau (float): Temperature.
        eps_S (float): Added to the student's variance.
        eps_T (float): Added to the teacher's variance.

    Returns:
        Tensor: The divergence, a float32 scalar.

    Raises:
        ValueError: If the shapes differ or are not (N, C, H, W).
    """
    _check_shapes(preds_S, preds_T)
    if preds_T.requires_grad and torch.is_grad_enabled():
        return channel_wise_divergence(
            F.batch_norm(preds_S.float(), None, None, training=True, eps=eps_S),
            F.batch_norm(preds_T.float(), None, None, training=True, eps=eps_T),
            tau,
        )
    return _PkdChannelWiseDivergence.apply(preds_S, preds_T, tau, eps_S, eps_T)


class _PkdChannelWiseDivergence(torch.autograd.Function):
    # Elements of a piece, one image at least: a processor keeps 1 MB in its cache, a GPU
    # wants more at once.
    _PIECE = {'cpu': 2**18, 'cuda': 2**25}

    @staticmethod
    def forward(ctx, preds_S, preds_T, tau, eps_S, eps_T):
        N, C, H, W = preds_S.shape
        # (N, HW, C) where the channels lie together in memory, else (N, C, HW).
        if preds_S.is_contiguous(memory_format=torch.channels_last):
            z_S, z_T = (z.permute(0, 2, 3, 1).reshape(N, H * W, C) for z in (preds_S, preds_T))
            channel, position = 2, 1
        else:
            z_S, z_T = (z.reshape(N, C, H * W) for z in (preds_S, preds_T))
            channel, position = 1, 2
        size = max(1, _PkdChannelWiseDivergence._PIECE.get(z_S.device.type, 2**25) // (C * H * W))
        pieces = [slice(start, start + size) for start in range(0, N, size)]
        mean_S, var_S = _moments(z_S, pieces, (0, position))
        _, var_T = _moments(z_T, pieces, (0, position))
        scale_S = (var_S + eps_S).rsqrt()
        scale_T = (var_T + eps_T).rsqrt()

        keep = ctx.needs_input_grad[0]
        # In float32: times the scale of mixed precision it fits a half, before that it does not.
        gradient = torch.empty_like(z_S, dtype=torch.float32) if keep else None
        # Sum over batch and positions of g * z: less the mean's share, which is zero.
        correlation = torch.zeros_like(mean_S)
        divergence = mean_S.new_zeros(())
        for piece in pieces:
            z = z_S[piece].float()
            log_phi_S = F.log_softmax(z * (scale_S / tau), dim=position)
            log_phi_T = F.log_softmax(z_T[piece].float() * (scale_T / tau), dim=position)
            phi_T = log_phi_T.exp()
            divergence += torch.sum(phi_T * log_phi_T.sub_(log_phi_S))
            if keep:
                g = log_phi_S.exp_().sub_(phi_T)
                correlation += torch.sum(g * z, dim=(0, position), keepdim=True)
                gradient[piece] = g
        if keep:
            slope = correlation * scale_S**2 / (N * H * W)
            factor = scale_S * (tau / (N * C))
            for piece in pieces:
                z = z_S[piece].float().sub_(mean_S).mul_(slope)
                gradient[piece].sub_(z).mul_(factor)
            gradient = (
                gradient.reshape(N, H, W, C).permute(0, 3, 1, 2)
                if channel == 2
                else gradient.reshape(N, C, H, W)
            )
            ctx.save_for_backward(gradient)
            ctx.dtype = preds_S.dtype
        return divergence * (tau**2 / (C * N))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_output).to(ctx.dtype), None, None, None, None


def _moments(
    z: torch.Tensor, pieces: list[slice], dims: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over batch and positions, in float32.

    Two passes of plain sums: several times faster on a processor than torch.var_mean, and
    as safe where the mean is large.
    """
    count = z.shape[dims[0]] * z.shape[dims[1]]
    mean = sum(z[piece].float().sum(dims, keepdim=True) for piece in pieces) / count
    squares = (z[piece].float().sub(mean).square_() for piece in pieces)
    return mean, sum(part.sum(dims, keepdim=True) for part in squares) / count


def _check_shapes(preds_S: torch.Tensor, preds_T: torch.Tensor) -> None:
    if preds_S.dim() != 4 or preds_S.shape != preds_T.shape:
        raise ValueError(
            'channel-wise divergence compares two feature maps of one shape (N, C, H, W), got '
            f'{tuple(preds_S.shape)} from the student and {tuple(preds_T.shape)} from the teacher; '
            'let a connector map the one to the other'
        )


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

    def fused_with_norm(
        self, preds_S: torch.Tensor, preds_T: torch.Tensor, eps_S: float, eps_T: float
    ) -> torch.Tensor:
        """The same after PKD's normalisation, see :func:`pkd_channel_wise_divergence`."""
        return self.loss_weight * pkd_channel_wise_divergence(
            preds_S, preds_T, self.tau, eps_S, eps_T
        )
