"""Channel-wise divergence, alone and fused with the normalisation of PKD."""

import math
from numbers import Real

import torch
import torch.nn.functional as F
from torch import nn

from rtm_kd.registry import MODELS
from rtm_kd.utils.errors import UsageError


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
        preds_S, preds_T (Tensor): Feature maps of student and teacher, (N, C, H, W).
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
    float32, a few images at a time: one tensor of the size and precision of ``preds_S`` is
    kept for the backward pass, and none of the teacher's.

    Args:
        preds_S, preds_T (Tensor): Feature maps of student and teacher before their norms,
            (N, C, H, W). Where ``preds_T`` needs a gradient, norms and divergence are computed one
            after the other, by autograd.
        tau (float): Temperature.
        eps_S, eps_T (float): Added to the variances.

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
    # Chunk size in elements, at least one image: it fits a CPU cache of 1 MB, and keeps a GPU busy
    # without taking more memory than that.
    _PIECE = {'cpu': 2**18, 'cuda': 2**22}

    @staticmethod
    def forward(ctx, preds_S, preds_T, tau, eps_S, eps_T):
        N, C, H, W = preds_S.shape
        # (N, HW, C) where a processor finds the channels together in memory, else (N, C, HW):
        # a GPU's softmax is slow over positions that lie apart.
        channels_inner = not preds_S.is_cuda and preds_S.is_contiguous(
            memory_format=torch.channels_last
        )
        z_S, z_T = preds_S.flatten(2), preds_T.flatten(2)
        if channels_inner:
            z_S, z_T = z_S.transpose(1, 2), z_T.transpose(1, 2)
        position = 1 if channels_inner else 2
        size = max(1, _PkdChannelWiseDivergence._PIECE.get(z_S.device.type, 2**22) // (C * H * W))
        pieces = [slice(start, start + size) for start in range(0, N, size)]
        if preds_S.is_cuda:
            mean_S, scale_S = _mean_and_scale_on_gpu(preds_S, eps_S)
            _, scale_T = _mean_and_scale_on_gpu(preds_T, eps_T)
        else:
            mean_S, scale_S = _mean_and_scale(z_S, pieces, position, eps_S)
            _, scale_T = _mean_and_scale(z_T, pieces, position, eps_T)

        keep = ctx.needs_input_grad[0]
        # The gradient times what scales it to near one, so that it also fits a half: a softmax
        # is about one over the number of positions, and one where all attention is on one of them.
        near_one = min(H * W, 2**15)
        gradient = torch.empty_like(z_S) if keep else None
        # Sum over batch and positions of g * z: less the mean's share, which is zero.
        correlation = torch.zeros_like(mean_S)
        divergence = mean_S.new_zeros(())
        for piece in pieces:
            z = _as_float32(z_S[piece])
            log_phi_S = F.log_softmax(z * (scale_S / tau), dim=position)
            log_phi_T = F.log_softmax(_as_float32(z_T[piece]) * (scale_T / tau), dim=position)
            phi_T = log_phi_T.exp()
            divergence += torch.sum(phi_T * log_phi_T.sub_(log_phi_S))
            if keep:
                g = log_phi_S.exp_().sub_(phi_T)
                correlation += torch.sum(g * z, dim=(0, position), keepdim=True)
                gradient[piece] = g.mul_(near_one)
        if keep:
            slope = correlation * scale_S**2 * (near_one / (N * H * W))
            for piece in pieces:
                gradient[piece] -= z_S[piece].float().sub(mean_S).mul_(slope)
            ctx.save_for_backward(gradient, scale_S * (tau / (N * C * near_one)))
            ctx.shape, ctx.channels_inner = preds_S.shape, channels_inner
        return divergence * (tau**2 / (C * N))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        gradient, factor = ctx.saved_tensors
        # In float32: times the scale of mixed precision it fits a half, before that it does not.
        gradient = (gradient * (factor * grad_output)).to(gradient.dtype)
        if ctx.channels_inner:
            gradient = gradient.transpose(1, 2)
        return gradient.reshape(ctx.shape), None, None, None, None


def _as_float32(z: torch.Tensor) -> torch.Tensor:
    """In float32, and on a GPU with the positions together in memory."""
    return torch.empty(z.shape, device=z.device).copy_(z) if z.is_cuda else z.float()


def _mean_and_scale(
    z: torch.Tensor, pieces: list[slice], position: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each channel, in float32.

    Two passes of plain sums: several times faster on a processor than torch.var_mean, and
    as safe where the mean is large.
    """
    dims = (0, position)
    count = z.shape[0] * z.shape[position]
    mean = sum(z[piece].float().sum(dims, keepdim=True) for piece in pieces) / count
    squares = (z[piece].float().sub(mean).square_() for piece in pieces)
    var = sum(part.sum(dims, keepdim=True) for part in squares) / count
    return mean, (var + eps).rsqrt()


def _mean_and_scale_on_gpu(preds: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by the kernel of torch's SyncBatchNorm, fast in either memory format."""
    if not preds.is_contiguous(memory_format=torch.channels_last):
        preds = preds.contiguous()
    return tuple(value.view(1, -1, 1) for value in torch.batch_norm_stats(preds, eps))


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
        if not (isinstance(tau, Real) and 0 < tau < math.inf):
            raise UsageError(f'tau must be a number above 0, got {tau!r}')
        if not (isinstance(loss_weight, Real) and math.isfinite(loss_weight)):
            raise UsageError(f'loss_weight must be a number, got {loss_weight!r}')
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
