import mmrazor.models as mmrazor_models
import pytest
import torch
import torch.nn.functional as F

from rtm_kd.models import ChannelWiseDivergence, channel_wise_divergence
from rtm_kd.models.losses import _PkdChannelWiseDivergence, pkd_channel_wise_divergence


@pytest.mark.parametrize('tau', [0.5, 1.0, 4.0])
@pytest.mark.parametrize('loss_weight', [1.0, 3.0])
def test_gives_mmrazors_loss_and_gradients(tau, loss_weight):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 8, 8).unbind()
    results = []
    for cls in (ChannelWiseDivergence, mmrazor_models.ChannelWiseDivergence):
        S, T = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        loss = cls(tau=tau, loss_weight=loss_weight)(preds_S=S, preds_T=T)
        loss.backward()
        results.append((loss.detach(), S.grad, T.grad))
    for own, other in zip(*results):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


def test_equals_the_formula_summed_by_hand():
    S = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    T = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    p = torch.tensor(1.0).sigmoid()
    expected = p * torch.log(p / (1 - p)) + (1 - p) * torch.log((1 - p) / p)
    torch.testing.assert_close(channel_wise_divergence(S, T), expected)


def test_is_zero_for_equal_attention_and_ignores_a_constant():
    feature = torch.randn(2, 4, 6, 6)
    shifted = feature + torch.randn(2, 4, 1, 1)
    assert channel_wise_divergence(feature, shifted).abs() < 1e-5


@pytest.mark.parametrize('shape', [(2, 4, 8, 8), (2, 3, 8, 4), (1, 3, 8, 8), (3, 8, 8)])
def test_refuses_features_of_different_shape(shape):
    with pytest.raises(ValueError, match='one shape'):
        channel_wise_divergence(torch.zeros(2, 3, 8, 8), torch.zeros(shape))


@pytest.mark.parametrize('tau', [0, -1.0])
def test_refuses_a_temperature_of_zero_or_less(tau):
    with pytest.raises(ValueError, match='tau'):
        ChannelWiseDivergence(tau=tau)


@pytest.mark.parametrize('device', ['cpu', *(['cuda'] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('piece', [1, 2**20])
@pytest.mark.parametrize('tau', [0.5, 2.0])
def test_fused_with_pkds_norm_equals_norm_then_divergence(
    device, memory_format, piece, tau, monkeypatch
):
    monkeypatch.setitem(_PkdChannelWiseDivergence._PIECE, device, piece)
    torch.manual_seed(0)
    student = (torch.randn(5, 7, 9, 11) * 3 + 4).to(device, memory_format=memory_format)
    teacher = torch.randn(5, 7, 9, 11).to(device) * 0.2 - 1

    S = student.clone(memory_format=torch.preserve_format).requires_grad_()
    loss = pkd_channel_wise_divergence(S, teacher, tau, eps_S=1e-5, eps_T=1e-3)
    (3 * loss).backward()
    expected_S = student.double().requires_grad_()
    expected = channel_wise_divergence(
        F.batch_norm(expected_S, None, None, training=True, eps=1e-5),
        F.batch_norm(teacher.double(), None, None, training=True, eps=1e-3),
        tau,
    )
    (3 * expected).backward()

    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(S.grad.double(), expected_S.grad, rtol=1e-4, atol=1e-8)
    assert S.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_fused_leaves_the_features_as_they_are(memory_format):
    """They may be the student's own, where its channels are the teacher's."""
    S, T = (x.contiguous(memory_format=memory_format) for x in torch.randn(2, 4, 8, 8, 8).unbind())
    before = S.clone()
    pkd_channel_wise_divergence(S.requires_grad_(), T).backward()
    assert torch.equal(S, before)


def test_fused_keeps_one_tensor_for_the_backward_pass():
    kept = []
    S, T = torch.randn(2, 4, 8, 8, 8).unbind()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        pkd_channel_wise_divergence(S.requires_grad_(), T)
    factors = S.shape[1]
    assert sum(tensor.numel() for tensor in kept) <= S.numel() + factors


def test_fused_takes_half_precision_features():
    S, T = torch.randn(2, 3, 5, 8, 8).unbind()
    exact = pkd_channel_wise_divergence(S.bfloat16().float(), T.half().float())
    torch.testing.assert_close(pkd_channel_wise_divergence(S.bfloat16(), T.half()), exact)


def test_fused_gradients_of_half_precision_are_finite_for_a_single_peak():
    S = torch.zeros(1, 1, 256, 256, dtype=torch.half)
    S[0, 0, 0, 0] = 1000
    pkd_channel_wise_divergence(S.requires_grad_(), torch.randn(1, 1, 256, 256)).backward()
    assert S.grad.isfinite().all()


def test_fused_gradients_of_half_precision_survive_under_a_loss_scale():
    """The gradient of one position among thousands is below the range of float16."""
    torch.manual_seed(0)
    S, T = torch.randn(2, 8, 16, 40, 40).unbind()
    S, half = S.half().float().requires_grad_(), S.half().requires_grad_()
    (65536 * pkd_channel_wise_divergence(half, T)).backward()
    (65536 * pkd_channel_wise_divergence(S, T)).backward()
    assert (half.grad.float() - S.grad).norm() < 1e-3 * S.grad.norm()
    assert (half.grad != 0).float().mean() > 0.99
