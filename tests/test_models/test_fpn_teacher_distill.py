import copy
import gc
import inspect
import weakref

import mmrazor.models  # noqa: F401, registers the classes compared with
import pytest
import torch
from benchmarks import mmrazor_cfg
from mmdet.registry import MODELS as DET_MODELS
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

from rtm_kd.models.algorithms import fpn_teacher_distill
from rtm_kd.models.algorithms.frozen_teacher import FrozenTeacher
from rtm_kd.models.distillers import expand
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

RTMDET_TINY = 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'
RTMDET_S = 'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py'


@pytest.fixture(autouse=True)
def mmyolo_scope():
    with DefaultScope.overwrite_default_scope('mmyolo'):
        yield


@pytest.fixture
def model_cfg(kd_config, options):
    cfg = load_config(kd_config, options).model
    cfg.distiller = expand(cfg.distiller)
    return cfg


def batch(size=64):
    """Two images, three boxes: (image, label, x1, y1, x2, y2)."""
    torch.manual_seed(1)
    boxes = torch.tensor(
        [[0, 0, 4, 4, 40, 44], [0, 1, 20, 10, 60, 50], [1, 1, 2, 2, 30, 30]], dtype=torch.float
    )
    samples = dict(bboxes_labels=boxes, img_metas=[dict(batch_input_shape=(size, size))] * 2)
    return torch.randn(2, 3, size, size), samples


def total_gradients(model, inputs, samples):
    losses = model.loss(inputs, copy.deepcopy(samples))
    model.parse_losses(losses)[0].backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_a_training_step_gives_mmrazors_losses_and_student_gradients(model_cfg):
    torch.manual_seed(0)
    theirs = MODELS.build(mmrazor_cfg(model_cfg))
    theirs.train()
    ours = MODELS.build(ConfigDict(model_cfg, reference=True)).train()
    ours.load_state_dict(
        {n: v for n, v in theirs.state_dict().items() if not n.startswith('teacher.')}
    )
    ours.teacher.load_state_dict(
        {n: v for n, v in theirs.teacher.state_dict().items() if not n.startswith('bbox_head')}
    )

    inputs, samples = batch()
    losses, gradients = total_gradients(ours, inputs, samples)
    expected_losses, expected_gradients = total_gradients(theirs, inputs, samples)

    assert losses.keys() == expected_losses.keys()
    assert {'student.loss_cls', 'distill.loss_pkd_fpn2'} <= losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected_losses[name], rtol=1e-6, atol=1e-6)
    assert gradients.keys() == {n for n in expected_gradients if not n.startswith('teacher.')}
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max()
        difference = (gradient - expected_gradients[name]).abs().max()
        assert difference <= 1e-5 * scale + 1e-9, name


@pytest.mark.parametrize('loss', ['rtm_kd.ChannelWiseDivergence', 'mmrazor.PKDLoss'])
def test_the_fast_path_comes_within_a_percent_of_the_reference(model_cfg, loss):
    for name in model_cfg.distiller.distill_losses:
        model_cfg.distiller.distill_losses[name] = dict(type=loss)
    torch.manual_seed(0)
    reference = MODELS.build(ConfigDict(model_cfg, reference=True)).train()
    fast = MODELS.build(model_cfg).train()
    fast.load_state_dict(reference.state_dict())
    fast.teacher.load_state_dict(reference.teacher.state_dict())

    inputs, samples = batch()
    losses, gradients = total_gradients(fast, inputs, samples)
    expected_losses, expected_gradients = total_gradients(reference, inputs, samples)

    assert losses.keys() == expected_losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected_losses[name], rtol=0.01, atol=0)
    difference = sum((gradients[n] - g).square().sum() for n, g in expected_gradients.items())
    norm = sum(g.square().sum() for g in expected_gradients.values())
    assert (difference / norm).sqrt() < 0.01


def with_trained_teacher_connector(cfg):
    pkd_norm = cfg.distiller.connectors.fpn0_t.norm_cfg
    cfg.distiller.connectors.fpn0_t = dict(
        type='rtm_kd.ConvModuleConnector',
        in_channel=128,
        out_channel=128,
        norm_cfg=pkd_norm,
        act_cfg=None,
    )


def with_two_levels_of_the_student(cfg):
    # The student's own feature as the target, through the connector of another level.
    mapping = cfg.distiller.loss_forward_mappings.loss_pkd_fpn0
    mapping.preds_T = dict(from_student=True, recorder='fpn0', connector='fpn1_s')
    del cfg.distiller.connectors['fpn0_t']


@pytest.mark.parametrize('change', [with_trained_teacher_connector, with_two_levels_of_the_student])
def test_trainable_connectors_of_the_teacher_get_gradients(model_cfg, change):
    change(model_cfg)
    torch.manual_seed(0)
    reference = MODELS.build(ConfigDict(model_cfg, reference=True)).train()
    default = MODELS.build(model_cfg).train()
    default.load_state_dict(reference.state_dict())
    default.teacher.load_state_dict(reference.teacher.state_dict())
    inputs, samples = batch()
    _, gradients = total_gradients(default, inputs, samples)
    _, expected = total_gradients(reference, inputs, samples)
    assert gradients.keys() == expected.keys()
    name = 'distiller.connectors.fpn1_s.conv_module.conv.weight'
    if change is with_trained_teacher_connector:
        name = 'distiller.connectors.fpn0_t.conv_module.conv.weight'
    torch.testing.assert_close(gradients[name], expected[name], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize('loss', ['rtm_kd.ChannelWiseDivergence', 'mmrazor.PKDLoss'])
def test_losses_are_float32_under_mixed_precision(loss):
    recorders = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    distiller = MODELS.build(
        dict(
            type='rtm_kd.ConfigurableDistiller',
            student_recorders=recorders,
            teacher_recorders=recorders,
            distill_losses=dict(loss=dict(type=loss)),
            loss_forward_mappings=dict(
                loss=dict(
                    preds_S=dict(from_student=True, recorder='fpn'),
                    preds_T=dict(from_student=False, recorder='fpn'),
                )
            ),
        )
    )
    torch.manual_seed(0)
    # Nearly equal, as late in training, where rounding to half would dominate.
    teacher = torch.randn(2, 3, 8, 8).bfloat16()
    student = (teacher + 0.01 * torch.randn(2, 3, 8, 8)).bfloat16()
    expected = distiller.distill_losses['loss'](student.float(), teacher.float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = distiller.compute_distill_losses(dict(fpn=[student]), dict(fpn=[teacher]))
    torch.testing.assert_close(losses['loss'], expected)


def test_the_teacher_gives_the_same_features_with_its_norms_folded(tmp_path):
    """Equal except for rounding; recorded norms are not folded."""
    cfg = load_config(_config_file(RTMDET_S, tmp_path)).model
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    sources = {
        'conv': 'neck.out_layers.0.conv',
        'norm': 'neck.out_layers.1.bn',
        'block': 'backbone.stage2.1',
    }
    inputs, _ = batch()
    folded = FrozenTeacher(model, None, sources)
    for name, (feature,) in (
        FrozenTeacher(model, None, sources, reference=True).record(inputs).items()
    ):
        torch.testing.assert_close(folded.record(inputs)[name][0], feature, rtol=1e-3, atol=1e-3)
    norms = [n for n, m in folded.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == ['neck.out_layers.0.bn', 'neck.out_layers.1.bn']
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()), 'given model changed'


def test_the_scope_key_of_mmrazors_configs_works(model_cfg):
    """Types without a prefix under ``_scope_='rtm_kd'``, as in MMRazor's configs."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items()}
        return value.replace('rtm_kd.', '') if isinstance(value, str) else value

    cfg = ConfigDict(strip(model_cfg), _scope_='rtm_kd')
    cfg.architecture = dict(cfg_path=RTMDET_TINY)
    assert type(MODELS.build(cfg).distiller.connectors['fpn0_s']).__module__.startswith('rtm_kd.')


@pytest.mark.parametrize('reference', [False, True])
@pytest.mark.parametrize('loss', ['PKDLoss', 'ChannelWiseDivergence', 'L2Loss', 'FTLoss'])
def test_a_mmrazor_loss_can_be_named(model_cfg, loss, reference):
    model_cfg.reference = reference
    names = inspect.signature(MODELS.get(f'mmrazor.{loss}').forward).parameters
    for name in model_cfg.distiller.distill_losses:
        model_cfg.distiller.distill_losses[name] = dict(type=f'mmrazor.{loss}', loss_weight=6)
        model_cfg.distiller.loss_forward_mappings[name] = dict(
            zip([*names][1:], model_cfg.distiller.loss_forward_mappings[name].values())
        )
    losses = MODELS.build(model_cfg).loss(*batch())
    assert losses['distill.loss_pkd_fpn0'] > 0


def test_features_without_gradients_are_refused(model_cfg):
    model = MODELS.build(model_cfg).train()
    turn_on_activation_checkpointing(model, ['architecture.neck'])
    with pytest.raises(ValueError, match=r'"neck.out_layers.0.conv" of the student.*no gradients'):
        model.loss(*batch())


def test_a_recorded_convolution_that_levels_share_is_recorded_at_each_of_them(model_cfg):
    source = 'bbox_head.head_module.cls_convs.0.0.conv'
    recorders = dict(cls=dict(type='ModuleOutputs', source=source))
    connectors = dict(s=dict(type='rtm_kd.ConvModuleConnector', act_cfg=None))
    losses = dict(loss_cls=dict(type='rtm_kd.ChannelWiseDivergence'))
    location = dict(recorder='cls', record_idx=2)
    mapping = dict(
        preds_S=dict(from_student=True, connector='s', **location),
        preds_T=dict(from_student=False, **location),
    )
    model_cfg.distiller = dict(
        type='rtm_kd.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=connectors,
        distill_losses=losses,
        loss_forward_mappings=dict(loss_cls=mapping),
    )
    assert MODELS.build(model_cfg).loss(*batch())['distill.loss_cls'].isfinite()


def with_a_loss_that_is_only_logged(cfg):
    for part in (cfg.distiller.distill_losses, cfg.distiller.loss_forward_mappings):
        part['pkd_fpn0'] = part.pop('loss_pkd_fpn0')


@pytest.mark.parametrize('change', [None, with_a_loss_that_is_only_logged])
def test_every_trained_weight_has_a_gradient_in_every_step(model_cfg, change):
    """DDP needs this, unless find_unused_parameters is set."""
    if change is not None:
        change(model_cfg)
    model = MODELS.build(model_cfg).train()
    inputs, samples = batch()
    nothing = dict(samples, bboxes_labels=samples['bboxes_labels'][:0])
    for detached in (False, True):
        model.distillation_stopped = detached
        for truth in (samples, nothing):
            model.zero_grad()
            _, gradients = total_gradients(model, inputs, truth)
            trained = {n for n, p in model.named_parameters() if p.requires_grad}
            assert gradients.keys() == trained
            connectors = {n for n in trained if n.startswith('distiller.')}
            assert len(connectors) == (0 if detached else 3 if change is None else 2)


def test_the_teacher_is_in_no_checkpoint_and_no_optimizer_and_copies_share_it(model_cfg):
    model = MODELS.build(model_cfg)
    names = {*model.state_dict(), *dict(model.named_parameters()), *dict(model.named_buffers())}
    assert names
    assert not any('teacher' in name for name in names)
    assert copy.deepcopy(model).teacher is model.teacher
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


def test_averaged_weights_follow_the_student(model_cfg):
    model = MODELS.build(model_cfg)
    # MMEngine's order: EMAHook first, then the initial weights.
    ema = MODELS.build(dict(type='ExpMomentumEMA', model=model, update_buffers=True))
    model.init_weights()
    ema.update_parameters(model)
    averaged = ema.module.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(averaged[name], value, msg=name)


def test_the_teacher_stays_as_it_was_while_the_student_trains(model_cfg):
    model = MODELS.build(model_cfg).train()
    model.init_weights()
    before = copy.deepcopy(model.teacher.state_dict())
    total_gradients(model, *batch())
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_teacher_follows_the_student_to_another_dtype(model_cfg):
    model = MODELS.build(model_cfg).double()
    assert next(model.teacher.parameters()).dtype is torch.float64


def test_building_leaves_no_trace_of_the_shape_check(model_cfg):
    torch.manual_seed(0)
    model = MODELS.build(model_cfg)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.student.modules())
    batches = [v for n, v in model.state_dict().items() if n.endswith('num_batches_tracked')]
    assert batches and not any(batches)


def test_predictions_are_the_students(model_cfg):
    model = MODELS.build(model_cfg).eval()
    inputs, _ = batch()
    for own, alone in zip(model(inputs, mode='tensor')[0], model.student(inputs, mode='tensor')[0]):
        assert torch.equal(own, alone)


@pytest.mark.parametrize(
    'teacher',
    [
        RTMDET_S,
        dict(cfg_path=RTMDET_S, num_classes=7),
        dict(cfg_path=RTMDET_S, backbone=dict(deepen_factor=0.167)),
    ],
)
def test_a_teacher_may_be_a_name_a_path_or_a_dict_with_overrides(model_cfg, teacher):
    model_cfg.teacher = teacher
    assert MODELS.build(model_cfg).loss(*batch())['distill.loss_pkd_fpn0'] > 0


def test_a_teacher_as_whole_model_dict_or_as_built_model(model_cfg, tmp_path):
    model_cfg.teacher = load_config(_config_file(RTMDET_S, tmp_path)).model
    built = MODELS.build(copy.deepcopy(model_cfg.teacher))
    MODELS.build(model_cfg)
    model_cfg.teacher_ckpt = None
    model = MODELS.build(ConfigDict(model_cfg, teacher=built))
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, built.state_dict()[name])


def _config_file(base, tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f"_base_ = '{base}'\n")
    return str(path)


@pytest.mark.parametrize('form', ['package', 'file', 'dict'])
def test_num_classes_reaches_head_and_assigner_in_every_form(model_cfg, form, tmp_path):
    path = _config_file(RTMDET_TINY, tmp_path)
    architecture = dict(
        package=lambda: dict(cfg_path=RTMDET_TINY),
        file=lambda: dict(cfg_path=path),
        dict=lambda: dict(load_config(path).model),
    )[form]()
    model_cfg.architecture = dict(architecture, num_classes=5)
    head = MODELS.build(model_cfg).student.bbox_head
    assert head.num_classes == 5
    assert head.head_module.rtm_cls[0].out_channels == 5
    assert head.assigner.num_classes == 5


def faulty(model_cfg, **changes):
    for key, value in changes.items():
        target = model_cfg
        *parents, last = key.split('__')
        for parent in parents:
            target = target[parent]
        target[last] = value
    return model_cfg


def test_the_log_lists_the_compared_modules(model_cfg, monkeypatch):
    said = []
    monkeypatch.setattr(fpn_teacher_distill, 'print_log', lambda line, **how: said.append(line))
    model_cfg.distiller.connectors.fpn1_s.act_cfg = dict(type='ReLU')
    MODELS.build(model_cfg)
    assert said[0] == (
        'loss_pkd_fpn0: "neck.out_layers.0.conv" of the student through fpn0_s with '
        '"neck.out_layers.0.conv" of the teacher through fpn0_t, ChannelWiseDivergence, norms and '
        'divergence in one'
    )
    assert [line.rpartition(', ')[2] for line in said] == [
        'norms and divergence in one',
        'module by module',
        'norms and divergence in one',
    ]


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(teacher_ckpt=None), 'no teacher_ckpt.*"random"'),
        (
            dict(distiller__student_recorders__fpn0__source='neck.out_layer.0.conv'),
            'student has no module "neck.out_layer.0.conv".*did you mean.*neck.out_layers.0.conv',
        ),
        (
            dict(distiller__teacher_recorders__fpn1__source='nek.out_layers.1.conv'),
            'teacher has no module "nek.out_layers.1.conv".*did you mean',
        ),
        (
            dict(distiller__student_recorders__fpn0__source='data_preprocessor'),
            r"\['fpn0'\] of the student record nothing",
        ),
        (dict(distiller__student_recorders__fpn0__type='MethodOutputs'), 'ModuleOutputs'),
        (
            dict(distiller__connectors__fpn1_s__in_channel=80),
            'connector "fpn1_s" expects 80 channels, but.*student gives 96 channels',
        ),
        (
            dict(distiller__connectors__fpn2_t__in_channels=96),
            'connector "fpn2_t" expects 96 channels, but.*teacher gives 128 channels',
        ),
        (
            dict(distiller__connectors__fpn0_s__out_channel=64),
            'loss "loss_pkd_fpn0".*64.*128',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn0__preds_S__connector='fpn_s'),
            '"fpn_s" is not one of the connectors.*did you mean',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn0__preds_S__recorder='fpn9'),
            '"fpn9" is not one of the student_recorders',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn0__preds_S__record_idx=1),
            'recorder "fpn0" has 1 record.*record_idx=1',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn0__preds_S__data_idx=5),
            'recorder "fpn0" records one tensor.*data_idx=5',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn0__preds_S__conector='fpn0_s'),
            '"conector" is not one of the keys of a mapping.*did you mean.*connector',
        ),
        (
            dict(distiller__loss_forward_mappings__loss_pkd_fpn1__preds_S__connector=None),
            r"connectors \['fpn1_s'\] are in no loss_forward_mappings",
        ),
        (dict(architecture='mmyolo::rtmdet/rtmdet_nano.py'), 'architecture: no config.*nano'),
        (dict(architecture='nowhere/mine.py'), 'no config file "nowhere/mine.py"'),
        (dict(teacher=dict(backbone=dict())), 'teacher must be'),
        (dict(teacher='no_such_package::a.py'), 'not installed'),
        (dict(teacher_trainable=True), 'teacher_trainable=True'),
        (dict(half_teacher=True), 'half_teacher=True is not supported'),
        (dict(distiller__type='mmrazor.ConfigurableDistiller'), 'rtm_kd.ConfigurableDistiller'),
    ],
)
def test_config_errors_are_named_before_any_image_is_read(model_cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(faulty(model_cfg, **changes))


def save_teacher(path, source, change=lambda weights: weights):
    weights = {f'{n}': v for n, v in MODELS.build(source).state_dict().items()}
    torch.save(dict(meta={}, state_dict=change(weights)), path)
    return str(path)


def test_a_teacher_with_other_classes_is_loaded_whole(model_cfg, tmp_path):
    cfg = load_config(_config_file(RTMDET_S, tmp_path), dict(num_classes=9)).model
    model_cfg.teacher_ckpt = save_teacher(tmp_path / 'teacher.pth', cfg)
    model_cfg.reference = True
    model = MODELS.build(model_cfg)
    model.init_weights()
    saved = torch.load(model_cfg.teacher_ckpt)['state_dict']
    loaded = model.teacher.state_dict()
    assert loaded and all(torch.equal(value, saved[name]) for name, value in loaded.items())


def drop_one(weights):
    weights.pop('neck.out_layers.0.conv.weight')
    return weights


def of_a_distillation(weights):
    return {f'architecture.{name}': value for name, value in weights.items()}


def shallow(weights):
    return {name: value for name, value in weights.items() if '.blocks.1.' not in name}


def without_neck(weights):
    return {name: value for name, value in weights.items() if not name.startswith('neck.')}


@pytest.mark.parametrize(
    'base, change, message',
    [
        (RTMDET_TINY, lambda w: w, r'backbone\S+ is \(.*expected \(.*more; it is of another size'),
        (RTMDET_S, shallow, r'backbone\S+ is missing.*; it is of another depth'),
        (RTMDET_S, of_a_distillation, r'checkpoint of a distillation.*convert_kd_ckpt'),
        (RTMDET_S, lambda w: {'fc.weight': torch.ones(1)}, 'it is of another model'),
        (RTMDET_S, drop_one, 'neck.out_layers.0.conv.weight is missing'),
        (RTMDET_S, without_neck, r'neck\.\S+ is missing'),
        (RTMDET_S, lambda w: {**w, 'neck.extra': torch.ones(1)}, 'neck.extra is unexpected'),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(model_cfg, tmp_path, base, change, message):
    cfg = load_config(_config_file(base, tmp_path)).model
    model_cfg.teacher_ckpt = save_teacher(tmp_path / 'teacher.pth', cfg, change)
    model = MODELS.build(model_cfg)
    with pytest.raises(ValueError, match=message):
        model.init_weights()


def test_mmdetections_checkpoint_teaches_as_in_mmdetection(model_cfg, tmp_path):
    cfg = get_config('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py').model
    cfg.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        teacher = DET_MODELS.build(cfg).eval()
    model_cfg.teacher_ckpt = str(tmp_path / 'teacher.pth')
    torch.save(dict(meta={}, state_dict=teacher.state_dict()), model_cfg.teacher_ckpt)
    model = MODELS.build(ConfigDict(model_cfg, reference=True))
    model.init_weights()

    images, _ = batch()
    expected = teacher.extract_feat(images)
    for feature, own in zip(expected, model.teacher.extract_feat(images)):
        torch.testing.assert_close(own, feature)


@pytest.mark.parametrize('value, message', [(float('nan'), 'NaN or Inf'), (0.0, '0 everywhere')])
def test_a_teacher_whose_features_are_nan_or_constant_is_refused(
    model_cfg, tmp_path, value, message
):
    def dead(weights):
        weights['neck.out_layers.1.conv.weight'].fill_(value)
        return weights

    cfg = load_config(_config_file(RTMDET_S, tmp_path)).model
    model_cfg.teacher_ckpt = save_teacher(tmp_path / 'teacher.pth', cfg, dead)
    model = MODELS.build(model_cfg)
    model.init_weights()
    with pytest.raises(
        ValueError, match=rf'"neck\.out_layers\.1\.conv" gives {message}.*teacher\.pth'
    ):
        model(*batch(), mode='loss')


def test_a_published_file_with_another_hash_is_refused(model_cfg, tmp_path):
    path = tmp_path / 'rtmdet_s_20221230_182329-0a8c901a.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), path)
    with pytest.raises(ValueError, match=r'SHA-256 begins with \w+, its name says 0a8c901a'):
        MODELS.build(faulty(model_cfg, teacher_ckpt=str(path))).init_weights()


@pytest.mark.parametrize('content', [b'not a checkpoint', b'', b'PK\x03\x04broken'])
def test_a_file_that_is_not_a_checkpoint_is_refused(model_cfg, tmp_path, content):
    path = tmp_path / 'teacher.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'teacher\.pth.*checkpoint'):
        MODELS.build(faulty(model_cfg, teacher_ckpt=str(path))).init_weights()


def test_a_teacher_checkpoint_that_is_missing_or_out_of_reach_is_refused(model_cfg):
    model = MODELS.build(faulty(model_cfg, teacher_ckpt='nowhere/teacher.pth'))
    with pytest.raises(ValueError, match='no checkpoint file nowhere/teacher'):
        model.init_weights()
    model = MODELS.build(faulty(model_cfg, teacher_ckpt='http://127.0.0.1:9/teacher.pth'))
    with pytest.raises(ValueError, match="can't be downloaded"):
        model.init_weights()


def test_detaching_frees_the_teacher_and_stops_the_distillation_losses(model_cfg):
    model = MODELS.build(model_cfg).train()
    teacher = weakref.ref(model.teacher)
    copy_of_ema = copy.deepcopy(model)
    model.detach_teacher()
    gc.collect()
    assert copy_of_ema.distillation_stopped
    assert teacher() is None and model.teacher is None
    assert not any(name.startswith('distill.') for name in model.loss(*batch()))
    assert model.distillation_stopped
