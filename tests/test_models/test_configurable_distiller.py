"""Fusing of norms and divergence: when it applies, and that the result is the same."""

import pytest
import torch
from mmengine.registry import DefaultScope

from rtm_kd.models import losses as own_losses
from rtm_kd.models.losses import ChannelWiseDivergence
from rtm_kd.registry import MODELS

PKD_NORM = dict(type='BN', affine=False, track_running_stats=False)
# Equal widths, so that a norm fits on either side of the convolution.
STUDENT = dict(
    type='ConvModuleConnector', in_channel=6, out_channel=6, norm_cfg=PKD_NORM, act_cfg=None
)
TEACHER = dict(type='NormConnector', in_channels=6, norm_cfg=PKD_NORM)


@pytest.fixture
def fused(monkeypatch):
    """A list with one entry per call of the fused function."""
    calls = []
    own = own_losses.pkd_channel_wise_divergence
    monkeypatch.setattr(
        own_losses, 'pkd_channel_wise_divergence', lambda *args: calls.append(args) or own(*args)
    )
    return calls


def losses(student=STUDENT, teacher=TEACHER, **loss):
    """The loss on random features by the default path and by the reference."""
    torch.manual_seed(0)
    recorders = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    cfg = dict(
        type='rtm_kd.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(s=student, t=teacher),
        distill_losses=dict(loss=dict(type='ChannelWiseDivergence', **loss)),
        loss_forward_mappings=dict(
            loss=dict(
                preds_S=dict(from_student=True, recorder='fpn', connector='s'),
                preds_T=dict(from_student=False, recorder='fpn', connector='t'),
            )
        ),
    )
    with DefaultScope.overwrite_default_scope('mmyolo'):
        default = MODELS.build(cfg)
        reference = MODELS.build(dict(cfg, reference=True))
    reference.load_state_dict(default.state_dict())
    # A small variance makes eps matter; a mean above zero keeps ReLU from cutting half.
    features = 0.1 * torch.randn(2, 4, 6, 8, 8) + 0.05
    records = [dict(fpn=[feature]) for feature in features]
    return [each.compute_distill_losses(*records)['loss'] for each in (default, reference)]


@pytest.mark.parametrize(
    'loss',
    [dict(), dict(loss_weight=3.0), dict(tau=0.5), dict(tau=4.0, loss_weight=0.25)],
)
def test_weight_and_temperature_apply_to_the_fused_loss(fused, loss):
    default, reference = losses(**loss)
    assert len(fused) == 1
    torch.testing.assert_close(default, reference, rtol=1e-5, atol=0)


@pytest.mark.parametrize('eps_S, eps_T', [(1e-5, 1e-2), (1e-2, 1e-5)])
def test_each_side_keeps_its_own_eps(fused, eps_S, eps_T):
    default, reference = losses(
        dict(STUDENT, norm_cfg=dict(PKD_NORM, eps=eps_S)),
        dict(TEACHER, norm_cfg=dict(PKD_NORM, eps=eps_T)),
    )
    assert len(fused) == 1
    torch.testing.assert_close(default, reference, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    'change',
    [
        dict(order=('norm', 'conv', 'act')),
        dict(act_cfg=dict(type='ReLU')),
        dict(act_cfg=dict(type='ReLU'), order=('conv', 'act', 'norm')),
        dict(kernel_size=3, padding=1, padding_mode='reflect'),
    ],
    ids=str,
)
def test_other_layers_than_a_convolution_and_its_norm_are_not_fused(fused, change):
    default, reference = losses(dict(STUDENT, **change))
    assert fused == []
    torch.testing.assert_close(default, reference, rtol=1e-6, atol=0)


def test_the_convolutions_zero_padding_is_kept_when_fused(fused):
    default, reference = losses(dict(STUDENT, kernel_size=3, padding=1))
    assert len(fused) == 1
    torch.testing.assert_close(default, reference, rtol=1e-5, atol=0)


@pytest.mark.parametrize('order', [('own', 'other'), ('other', 'own')])
def test_the_order_of_losses_does_not_change_what_a_step_costs(order, monkeypatch):
    """Losses that need the teacher in float32 leave the others its half precision."""
    types = dict(own='rtm_kd.ChannelWiseDivergence', other='mmrazor.PKDLoss')
    seen = []
    fused = ChannelWiseDivergence.fused_with_norm

    def noted(self, preds_S, preds_T, **eps):
        seen.append(preds_T.dtype)
        return fused(self, preds_S, preds_T, **eps)

    monkeypatch.setattr(ChannelWiseDivergence, 'fused_with_norm', noted)
    recorders = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    distiller = MODELS.build(
        dict(
            type='rtm_kd.ConfigurableDistiller',
            student_recorders=recorders,
            teacher_recorders=recorders,
            connectors={
                name: dict(type='NormConnector', in_channels=4, norm_cfg=PKD_NORM)
                for name in ('student', 'teacher')
            },
            distill_losses={f'loss_{name}': dict(type=types[name]) for name in order},
            loss_forward_mappings={
                f'loss_{name}': dict(
                    preds_S=dict(from_student=True, recorder='fpn', connector='student'),
                    preds_T=dict(from_student=False, recorder='fpn', connector='teacher'),
                )
                for name in order
            },
        )
    )
    features = torch.randn(2, 4, 6, 6)
    losses = distiller.compute_distill_losses(
        dict(fpn=[features]), dict(fpn=[features.flip(0).bfloat16()])
    )
    assert seen == [torch.bfloat16]
    assert all(loss > 0 for loss in losses.values())
