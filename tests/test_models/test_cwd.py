import mmrazor.models as mmrazor_models
import pytest
import torch

from rtm_kd.models import ChannelWiseDivergence, channel_wise_divergence


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


def test_is_zero_for_equal_attention_and_blind_to_a_constant():
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
