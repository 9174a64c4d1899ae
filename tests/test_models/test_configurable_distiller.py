import pytest
import torch

from rtm_kd.models.losses import ChannelWiseDivergence
from rtm_kd.registry import MODELS

PKD = dict(type='BN', affine=False, track_running_stats=False)


@pytest.mark.parametrize('order', [('own', 'other'), ('other', 'own')])
def test_the_order_of_losses_does_not_change_what_a_step_costs(order, monkeypatch):
    """Losses that need the teacher in float32 leave the others its half precision."""
    types = dict(own='rtm_kd.ChannelWiseDivergence', other='mmrazor.PKDLoss')
    recorders = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    distiller = MODELS.build(
        dict(
            type='rtm_kd.ConfigurableDistiller',
            student_recorders=recorders,
            teacher_recorders=recorders,
            connectors={
                name: dict(type='NormConnector', in_channels=4, norm_cfg=PKD)
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
    seen = []
    fused = ChannelWiseDivergence.fused_with_norm

    def noted(self, preds_S, preds_T, **eps):
        seen.append(preds_T.dtype)
        return fused(self, preds_S, preds_T, **eps)

    monkeypatch.setattr(ChannelWiseDivergence, 'fused_with_norm', noted)
    features = torch.randn(2, 4, 6, 6)
    losses = distiller.compute_distill_losses(
        dict(fpn=[features]), dict(fpn=[features.flip(0).bfloat16()])
    )
    assert seen == [torch.bfloat16]
    assert all(loss > 0 for loss in losses.values())
