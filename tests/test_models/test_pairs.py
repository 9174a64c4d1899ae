"""Which students and teachers fit together, and the errors if they do not."""

import copy
import logging

import pytest
import torch
from helpers import ROOT, batch, connected
from mmcv import _ext
from mmcv.cnn import ConvModule
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import InstanceData
from torch import nn

from rtm_kd.compat import mmcv_ext
from rtm_kd.compat.channels_last import to_channels_last
from rtm_kd.models.algorithms import fpn_teacher_distill
from rtm_kd.models.algorithms.detector import build_detector
from rtm_kd.models.algorithms.frozen_teacher import FrozenTeacher, pixel_conversion
from rtm_kd.models.distillers import ConfigurableDistiller
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

TINY, SMALL, MEDIUM = (
    f'mmyolo::rtmdet/rtmdet_{size}_syncbn_fast_8xb32-300e_coco.py' for size in ('tiny', 's', 'm')
)
YOLOV8 = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'
YOLOV5_P6 = 'mmyolo::yolov5/yolov5_n-p6-v62_syncbn_fast_8xb16-300e_coco.py'
MMDET_INS = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'
SHALLOW = dict(deepen_factor=0.167)


@pytest.fixture(autouse=True)
def mmyolo_scope():
    with DefaultScope.overwrite_default_scope('mmyolo'):
        yield


@pytest.fixture(scope='module')
def loaded_cfg():
    config = ROOT / 'configs/kd_tiny_rtmdet_s_neck_300e_coco.py'
    return load_config(str(config), dict(teacher_ckpt='random')).model


@pytest.fixture
def model_cfg(loaded_cfg):
    """RTMDet-tiny from RTMDet-s, without channels in the config."""
    return copy.deepcopy(loaded_cfg)


def recorded(cfg, side, source):
    for i in range(3):
        cfg.distiller[f'{side}_recorders'][f'fpn{i}'].source = source.format(i)


@pytest.mark.parametrize(
    'student, teacher, expected',
    [
        (TINY, MEDIUM, (96, 192)),
        (SMALL, TINY, (128, 96)),
        # Equal widths keep their convolution, as in the recipe.
        (TINY, TINY, (96, 96)),
    ],
)
def test_missing_channels_are_inferred_from_both_models(model_cfg, student, teacher, expected):
    model_cfg.architecture = student
    model_cfg.teacher = dict(cfg_path=teacher, backbone=SHALLOW, neck=SHALLOW)
    model = MODELS.build(model_cfg).train()
    assert connected(model) == [expected] * 3
    model.parse_losses(model.loss(*batch()))[0].backward()
    for connector in model.distiller.connectors.values():
        assert all(parameter.grad is not None for parameter in connector.parameters())


def test_inferred_channels_give_the_same_model_as_typed_ones(model_cfg):
    torch.manual_seed(0)
    left_out = MODELS.build(model_cfg).train()
    typed_cfg = copy.deepcopy(model_cfg)
    for i in range(3):
        typed_cfg.distiller.connectors[f'fpn{i}_s'].update(in_channel=96, out_channel=128)
        typed_cfg.distiller.connectors[f'fpn{i}_t'].update(in_channels=128)
    typed = MODELS.build(typed_cfg).train()
    assert list(left_out.state_dict()) == list(typed.state_dict())
    typed.load_state_dict(left_out.state_dict())
    typed.teacher.load_state_dict(left_out.teacher.state_dict())
    inputs, samples = batch()
    for name, loss in typed.loss(inputs, copy.deepcopy(samples)).items():
        assert torch.equal(loss, left_out.loss(inputs, copy.deepcopy(samples))[name]), name


def test_missing_channels_are_inferred_beside_typed_ones_and_in_lists(model_cfg):
    connectors = model_cfg.distiller.connectors
    connectors.fpn0_s.in_channel = 96
    connectors.fpn1_s = [
        dict(type='rtm_kd.ConvModuleConnector', out_channel=48),
        dict(type='ConvModuleConnector', act_cfg=None),
        connectors.fpn1_t,
    ]
    # The teacher's own connector reduces its channels; the student has to match that.
    connectors.fpn2_t = dict(type='rtm_kd.ConvModuleConnector', out_channel=32)
    model = MODELS.build(model_cfg)
    built = model.distiller.connectors
    assert built.fpn0_s.conv_module.conv.weight.shape[:2] == (128, 96)
    assert [part.in_channels for part in built.fpn1_s] == [96, 48, 128]
    assert built.fpn2_s.conv_module.conv.weight.shape[:2] == (32, 96)


def test_inferring_channels_leaves_norm_statistics_unchanged(model_cfg):
    for i in range(3):
        model_cfg.distiller.connectors[f'fpn{i}_s'].norm_cfg = dict(type='BN')
    connector = MODELS.build(model_cfg).distiller.connectors['fpn0_s']
    assert connector.training
    assert connector.conv_module.norm.num_batches_tracked == 0


def with_coarser_teacher(cfg):
    cfg.distiller.loss_forward_mappings.loss_pkd_fpn0.preds_T.recorder = 'fpn1'


def with_level_that_is_missing(cfg):
    cfg.distiller.student_recorders.fpn2.source = 'neck.out_layers.3.conv'


def with_whole_neck(cfg):
    cfg.distiller.student_recorders.fpn1.source = 'neck'


def with_an_argument_that_is_missing(cfg):
    del cfg.distiller.loss_forward_mappings.loss_pkd_fpn0.preds_T


def with_two_stages(cfg):
    cfg.architecture = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def with_student_that_only_predicts(cfg):
    cfg.architecture = 'mmyolo::rtmdet/rtmdet-ins_s_syncbn_fast_8xb32-300e_coco.py'


@pytest.mark.parametrize(
    'change, message',
    [
        (
            with_student_that_only_predicts,
            'mmyolo ships its RTMDetInsSepBNHead without a loss; MMDetection can',
        ),
        (
            with_coarser_teacher,
            '"neck.out_layers.1.conv" of the teacher gives a map of 4x4 and '
            '"neck.out_layers.0.conv" of the student one of 8x8',
        ),
        (with_level_that_is_missing, 'student has no module "neck.out_layers.3.conv".*did you'),
        (with_whole_neck, '"neck" of the student gives 3 outputs.*data_idx=0 to 2'),
        (with_an_argument_that_is_missing, '"loss_pkd_fpn0".*missing.*preds_T'),
        (with_two_stages, 'student has no module "neck.out_layers.0.conv"'),
    ],
)
def test_features_that_cannot_be_compared_are_refused_with_the_reason(model_cfg, change, message):
    change(model_cfg)
    with pytest.raises(ValueError, match=message):
        MODELS.build(model_cfg)


def test_a_recorder_in_the_head_makes_both_heads_run(model_cfg):
    """The teacher's head is loaded, run and checked only in this case."""
    assert MODELS.build(model_cfg).teacher.bbox_head is None
    distiller = model_cfg.distiller
    for recorders in (distiller.student_recorders, distiller.teacher_recorders):
        recorders.scores = dict(type='ModuleOutputs', source='bbox_head.head_module.rtm_cls.0')
    distiller.distill_losses.loss_cls = dict(type='mmrazor.L2Loss', normalize=False)
    distiller.loss_forward_mappings.loss_cls = dict(
        s_feature=dict(from_student=True, recorder='scores'),
        t_feature=dict(from_student=False, recorder='scores'),
    )
    model = MODELS.build(model_cfg).train()
    losses = model.loss(*batch())
    assert losses['distill.loss_cls'] > 0
    assert losses['distill.loss_cls'].requires_grad


def test_an_output_of_the_whole_neck_can_be_named(model_cfg):
    with_whole_neck(model_cfg)
    model_cfg.distiller.loss_forward_mappings.loss_pkd_fpn1.preds_S.data_idx = 1
    assert connected(MODELS.build(model_cfg)) == [(96, 128)] * 3


def test_four_levels_may_learn_from_four(model_cfg):
    """At stride 64 the images used to infer channels have a single position."""
    model_cfg.architecture = model_cfg.teacher = YOLOV5_P6
    distiller = model_cfg.distiller
    for side in ('student', 'teacher'):
        recorded(model_cfg, side, 'neck.out_layers.{}')
        distiller[f'{side}_recorders'].fpn2.source = 'neck.out_layers.3'
    assert connected(MODELS.build(model_cfg)) == [(64, 64), (128, 128), (256, 256)]


@pytest.mark.skipif(_ext.__spec__.origin != mmcv_ext.__file__, reason='this mmcv trains them')
def test_a_student_that_needs_a_compiled_operator_is_refused(model_cfg):
    with_two_stages(model_cfg)
    for i in range(3):
        # Its finest level has stride 4, the teacher's 8.
        model_cfg.distiller.student_recorders[f'fpn{i}'].source = f'neck.fpn_convs.{i + 1}.conv'
    model = MODELS.build(model_cfg).train()
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 40, 44]]), labels=torch.tensor([0])
    )
    with pytest.raises(ValueError, match='"roi_align_forward" exists only in a compiled mmcv'):
        model.loss(torch.randn(1, 3, 64, 64), [sample])


@pytest.mark.parametrize('student, warned', [(SMALL, True), (TINY, False)])
def test_a_teacher_smaller_than_its_student_gives_one_warning(
    model_cfg, monkeypatch, student, warned
):
    said = []
    monkeypatch.setattr(
        fpn_teacher_distill, 'print_log', lambda message, **how: said.append((message, how))
    )
    model_cfg.architecture, model_cfg.teacher = student, TINY
    model = MODELS.build(model_cfg)
    model.loss(*batch())
    warnings = [message for message, how in said if how.get('level') == logging.WARNING]
    assert len(warnings) == warned
    for message in warnings:
        assert 'teacher has 4.54 million' in message and 'student 8.26 million' in message


def test_a_teacher_gets_images_in_its_own_normalisation(model_cfg):
    """YOLOv8 scales RGB to [0, 1], RTMDet normalises BGR by mean and std."""
    model_cfg.architecture = YOLOV8
    recorded(model_cfg, 'student', 'neck.out_layers.{}')
    teacher = build_detector(TINY, 'teacher').eval()
    model = MODELS.build(ConfigDict(model_cfg, teacher=teacher, teacher_ckpt=None, reference=True))
    assert connected(model) == [(64, 96), (128, 96), (256, 96)]

    data = dict(inputs=torch.randint(0, 256, (2, 3, 64, 64)).float(), data_samples=batch()[1])
    seen = model.data_preprocessor(copy.deepcopy(data), training=True)['inputs']
    own = teacher.data_preprocessor(data, training=True)['inputs']
    assert not torch.allclose(seen, own, atol=0.1)
    expected = FrozenTeacher(teacher, None, model.distiller.teacher_sources, reference=True)
    for name, (feature,) in expected.record(own).items():
        (given,) = model._teacher.record(seen)[name]
        torch.testing.assert_close(given, feature, rtol=1e-3, atol=1e-3)


def test_models_of_one_normalisation_need_no_conversion():
    detectors = [build_detector(source, 'x') for source in (TINY, MMDET_INS, YOLOV8)]
    rtmdet, of_mmdet, yolov8 = (detector.data_preprocessor for detector in detectors)
    assert pixel_conversion(rtmdet, of_mmdet) is None
    assert pixel_conversion(rtmdet, yolov8) is not None
    assert pixel_conversion(rtmdet, nn.Identity()) is None


def preprocessor(mean, std, **order):
    return ImgDataPreprocessor(mean=mean, std=std, **order).eval()


BGR = preprocessor([103.53, 116.28, 123.675], [57.375, 57.12, 58.395])
OTHER_BGR = preprocessor([10.0, 20.0, 30.0], [2.0, 3.0, 4.0])
RGB = preprocessor([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], bgr_to_rgb=True)
TO_ONE = preprocessor([0.0, 0.0, 0.0], [255.0, 255.0, 255.0], bgr_to_rgb=True)
AS_IT_IS = ImgDataPreprocessor().eval()


@pytest.mark.parametrize('source', [BGR, OTHER_BGR, RGB, TO_ONE, AS_IT_IS])
@pytest.mark.parametrize('target', [BGR, OTHER_BGR, RGB, TO_ONE, AS_IT_IS])
def test_images_are_converted_between_preprocessors(source, target):
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    seen, expected = (part(dict(inputs=list(images)))['inputs'] for part in (source, target))
    convert = pixel_conversion(source, target)
    assert (convert is None) == (source is target)
    if convert is not None:
        torch.testing.assert_close(convert(seen.float()), expected.float(), rtol=1e-4, atol=1e-4)


def test_load_from_takes_a_checkpoint_of_the_student_alone(model_cfg):
    model, other = MODELS.build(model_cfg), MODELS.build(model_cfg)
    connector = 'distiller.connectors.fpn0_s.conv_module.conv.weight'
    kept = model.state_dict()[connector].clone()
    load_state_dict(model, other.student.state_dict())
    for name, value in model.student.state_dict().items():
        assert torch.equal(value, other.student.state_dict()[name]), name
    assert torch.equal(model.state_dict()[connector], kept)
    load_state_dict(model, other.state_dict(), strict=True)
    assert torch.equal(model.state_dict()[connector], other.state_dict()[connector])


def test_mmdetections_models_teach_from_their_own_checkpoints(tmp_path):
    teacher = build_detector(MMDET_INS, 'teacher')
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(meta={}, state_dict=teacher.state_dict()), path)
    loaded = FrozenTeacher(MMDET_INS, path, {'fpn0': 'neck.out_convs.0.conv'}, reference=True)
    loaded.load()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name


@pytest.mark.parametrize(
    'config',
    [
        'yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py',
        'yolov6/yolov6_n_syncbn_fast_8xb32-400e_coco.py',
        'yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py',
        'yolox/yolox_tiny_fast_8xb32-300e-rtmdet-hyp_coco.py',
        'ppyoloe/ppyoloe_plus_s_fast_8xb8-80e_coco.py',
    ],
)
def test_folding_a_teachers_norms_leaves_recorded_outputs_unchanged(config):
    torch.manual_seed(0)
    teacher = build_detector(f'mmyolo::{config}', 'teacher')
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    last = '.conv' if 'yolox' in config else ''
    sources = {f'fpn{i}': f'neck.out_layers.{i}{last}' for i in range(3)}
    images = torch.randn(2, 3, 64, 64)
    frozen = FrozenTeacher(teacher, None, sources)
    expected = frozen.probe(images)
    for name, (feature,) in frozen.record(images).items():
        scale = expected[name][0].std()
        torch.testing.assert_close(feature / scale, expected[name][0] / scale, rtol=0, atol=1e-3)
    convs = [m for m in frozen.model.modules() if isinstance(m, ConvModule)]
    assert sum(conv.with_norm for conv in convs) == (3 if last else 0)


def test_syncbn_norms_are_folded_too():
    torch.manual_seed(0)
    teacher = nn.SyncBatchNorm.convert_sync_batchnorm(build_detector(TINY, 'teacher'))
    sources = {'fpn0': 'neck.out_layers.0.conv', 'block': 'backbone.stage2.1'}
    images = torch.randn(2, 3, 64, 64)
    frozen = FrozenTeacher(teacher, None, sources)
    expected = frozen.probe(images)
    for name, (feature,) in frozen.record(images).items():
        torch.testing.assert_close(feature, expected[name][0], rtol=1e-3, atol=1e-3)
    norms = [n for n, m in frozen.model.named_modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms == ['neck.out_layers.0.bn']


def test_scale_by_multiplies_as_the_head_does(model_cfg, monkeypatch):
    model = MODELS.build(model_cfg).train()
    inputs, samples = batch()
    monkeypatch.setattr('rtm_kd.models.distillers.configurable_distiller.get_world_size', lambda: 8)
    plain = model.loss(inputs, copy.deepcopy(samples))
    model.distiller.scale_by = ('batch_size', 'world_size')
    scaled = model.loss(inputs, copy.deepcopy(samples))
    for name, loss in plain.items():
        factor = 16 if name.startswith('distill') else 1
        torch.testing.assert_close(scaled[name], loss * factor)


@pytest.mark.parametrize('scale_by', ['batch_size', ('images',), 3])
def test_an_invalid_scale_by_is_refused(model_cfg, scale_by):
    cfg = dict(model_cfg.distiller, scale_by=scale_by)
    cfg.pop('type')
    with pytest.raises(ValueError, match=r"scale_by.*\('batch_size', 'world_size'\)"):
        ConfigurableDistiller(**cfg)


def test_a_layer_that_cannot_train_in_channels_last_stays_contiguous():
    """A convolution of YOLOv6's first layer, in which oneDNN writes out of bounds."""
    conv = nn.Conv2d(3, 16, 1, stride=2, bias=False)
    other = nn.Conv2d(16, 16, 3, padding=1)
    model = nn.Sequential(conv, other)
    expected = copy.deepcopy(model)
    to_channels_last(model)
    seen = []
    conv.register_forward_hook(lambda module, args, out: seen.append(args[0].is_contiguous()))
    images = torch.randn(4, 3, 32, 32)
    model(images.to(memory_format=torch.channels_last)).sum().backward()
    expected(images).sum().backward()
    assert seen == [True] and conv.weight.is_contiguous()
    assert other.weight.is_contiguous(memory_format=torch.channels_last)
    for own, other in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)
