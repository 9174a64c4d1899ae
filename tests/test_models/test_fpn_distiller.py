"""The distiller's short form expands to the wiring that the COCO recipes spell out."""

import copy

import pytest
import torch
from helpers import ROOT, batch
from mmengine.registry import DefaultScope

from rtm_kd.models.distillers import expand
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

SHORT = dict(type='rtm_kd.FpnDistiller', source='neck.out_layers.{}.conv')


@pytest.fixture(scope='module')
def spelled_out():
    config = ROOT / 'configs/kd_tiny_rtmdet_s_neck_300e_coco.py'
    options = dict(teacher_ckpt='random', num_classes=4, loss_weight=2.0, tau=3.0)
    return load_config(str(config), options).model


def build(model_cfg, **changes):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        return MODELS.build({**copy.deepcopy(model_cfg), **copy.deepcopy(changes)}).train()


def test_both_spellings_build_the_same_model_with_the_same_losses(spelled_out):
    long = build(spelled_out)
    short = build(spelled_out, distiller=dict(SHORT, loss_weight=2.0, tau=3.0))
    weights = long.state_dict()
    assert list(short.state_dict()) == list(weights)
    for name, value in short.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for part in ('connector_cfgs', 'student_sources', 'teacher_sources', 'loss_forward_mappings'):
        assert getattr(short.distiller, part) == getattr(long.distiller, part)
    assert str(short.distiller.distill_losses) == str(long.distiller.distill_losses)
    data = batch()
    losses, expected = (model.loss(*copy.deepcopy(data)) for model in (short, long))
    assert list(losses) == list(expected)
    assert sum(name.startswith('distill.loss_pkd_fpn') for name in losses) == 3
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]), name


@pytest.mark.parametrize(
    'config, earlier',
    [
        (
            'yolov8/kd_yolov8_n_yolov8_s_neck_500e_coco.py',
            'kd_yolov8_n_yolov8_s_neck_500e_coco.py',
        ),
        ('custom_dataset/kd_student_teacher.py', 'kd_tiny_rtmdet_s_bccd.py'),
    ],
)
def test_the_short_form_expands_to_the_full_wiring(config, earlier):
    long = load_config(str(ROOT / 'tests/data/earlier_configs' / earlier))
    short = load_config(str(ROOT / 'configs' / config))
    assert short.model.distiller.type == 'rtm_kd.FpnDistiller'
    assert expand(short.model.distiller) == long.model.distiller
    # A config in full form stays unchanged.
    assert expand(long.model.distiller) == long.model.distiller


def test_a_part_of_the_wiring_can_be_changed_as_if_it_were_spelled_out(spelled_out):
    norm = dict(type='NormConnector', norm_cfg=dict(type='SyncBN'))
    changes = dict(
        student_recorders=dict(fpn0=dict(source='neck.out_layers.0')),
        connectors=dict(fpn1_t=dict(_delete_=True, **norm)),
        distill_losses=dict(loss_pkd_fpn2=dict(loss_weight=0.0)),
    )
    cfg = dict(SHORT, **changes)
    for _ in range(2):  # a config is built more than once
        full = expand(cfg)
        assert full.student_recorders.fpn0.source == 'neck.out_layers.0'
        assert full.teacher_recorders.fpn0.source == 'neck.out_layers.0.conv'
        assert full.connectors.fpn1_t == norm
        weights = [loss.loss_weight for loss in full.distill_losses.values()]
        assert weights == [1.0, 1.0, 0.0]
    model = build(spelled_out, distiller=cfg)
    assert model.distiller.student_sources['fpn0'] == 'neck.out_layers.0'
    assert model.distiller.distill_losses['loss_pkd_fpn2'].loss_weight == 0.0


def test_the_teacher_may_have_other_names_and_there_may_be_fewer_levels():
    full = expand(dict(SHORT, teacher_source='neck.out_convs.{}.conv', num_levels=2))
    assert [recorder.source for recorder in full.teacher_recorders.values()] == [
        'neck.out_convs.0.conv',
        'neck.out_convs.1.conv',
    ]
    assert full.student_recorders.fpn1.source == 'neck.out_layers.1.conv'
    assert list(full.connectors) == ['fpn0_s', 'fpn0_t', 'fpn1_s', 'fpn1_t']


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(source='neck.out_layers.0'), r'source of the student needs \{\}.*out_layers\.0'),
        (dict(teacher_source=3), r'source of the teacher needs \{\}.*got 3'),
        (dict(num_levels=0), 'num_levels must be an integer above 0, got 0'),
        (dict(num_levels=7), 'no module "neck.out_layers.3.conv".*recorder "fpn3"'),
    ],
)
def test_a_wrong_value_is_named(spelled_out, changes, message):
    with pytest.raises(ValueError, match=message):
        build(spelled_out, distiller=dict(SHORT, **changes))
