import ast
import re
import subprocess
import sys

import pytest
from helpers import ROOT, batch, build_a_copy_alone, connected, take_a_step
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from rtm_kd.models.distillers import expand
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

COCO = {
    'kd_tiny_rtmdet_s_neck_300e_coco.py': (96, 128, 's', '0a8c901a'),
    'kd_s_rtmdet_m_neck_300e_coco.py': (128, 192, 'm', '40af4fe8'),
    'kd_m_rtmdet_l_neck_300e_coco.py': (192, 256, 'l', 'ee3abdc4'),
    'kd_l_rtmdet_x_neck_300e_coco.py': (256, 320, 'x', 'b85cd476'),
}
# From before the distiller's short form; users may have copied them.
EARLIER = {
    'kd_tiny_rtmdet_s_bccd.py': ([(96, 128)] * 3, 36),
    'kd_yolov8_n_yolov8_s_neck_500e_coco.py': ([(64, 128), (128, 256), (256, 512)], 30),
}
ALL = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py'))


@pytest.mark.parametrize('name', COCO)
def test_coco_config_is_the_published_recipe(name):
    _, _, size, digest = COCO[name]
    cfg = Config.fromfile(ROOT / 'configs' / name)
    assert cfg.model.teacher_ckpt.startswith(
        f'https://download.openmmlab.com/mmyolo/v0/rtmdet/rtmdet_{size}_syncbn_fast_8xb32'
    )
    assert cfg.model.teacher_ckpt.endswith(f'-{digest}.pth')
    pkd_norm = dict(type='BN', affine=False, track_running_stats=False)
    for level in range(3):
        source = dict(type='ModuleOutputs', source=f'neck.out_layers.{level}.conv')
        distiller = cfg.model.distiller
        assert distiller.student_recorders[f'fpn{level}'] == source
        assert distiller.teacher_recorders[f'fpn{level}'] == source
        assert distiller.connectors[f'fpn{level}_s'] == dict(
            type='rtm_kd.ConvModuleConnector', bias=False, norm_cfg=pkd_norm, act_cfg=None
        )
        assert distiller.connectors[f'fpn{level}_t'] == dict(
            type='rtm_kd.NormConnector', norm_cfg=pkd_norm
        )
        assert f'loss_pkd_fpn{level}' in distiller.distill_losses
    ema, switch, detach = cfg.custom_hooks
    assert ema.type == 'EMAHook'
    assert switch.switch_epoch == detach.detach_epoch == 280


def test_the_coco_recipes_alone_spell_out_the_wiring():
    spelled_out = {config for config in ALL if 'student_recorders' in (ROOT / config).read_text()}
    assert spelled_out == {f'configs/{name}' for name in COCO}


def test_the_coco_configs_differ_in_sizes_and_figures_alone():
    bodies = set()
    for name in COCO:
        text = (ROOT / 'configs' / name).read_text()
        body = text[text.index('# ======================= Possibly modified') :]
        bodies.add(body)
    assert len(bodies) == 1


@pytest.mark.parametrize('name', COCO)
def test_a_copy_alone_in_an_empty_folder_dumps_builds_and_takes_a_step(name, tmp_path):
    student, teacher, _, _ = COCO[name]
    cfg, model = build_a_copy_alone(name, tmp_path)
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').model == cfg.model
    assert connected(model) == [(student, teacher)] * 3
    take_a_step(model, batch())


@pytest.mark.parametrize('name', EARLIER)
def test_a_config_of_an_earlier_release_still_builds_and_takes_a_step(name):
    channels, detach_epoch = EARLIER[name]
    config = ROOT / 'tests/data/earlier_configs' / name
    cfg = load_config(str(config), dict(teacher_ckpt='random', max_epochs=40))
    assert cfg.custom_hooks[-1].detach_epoch == detach_epoch
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).train()
    assert connected(model) == channels
    images, samples = batch()
    samples['bboxes_labels'][:, 1] = 0
    take_a_step(model, (images, samples))


def test_another_student_is_one_line_and_another_teacher_an_option(tmp_path):
    _, model = build_a_copy_alone(
        'kd_tiny_rtmdet_s_neck_300e_coco.py',
        tmp_path,
        change=lambda text: text.replace('rtmdet/rtmdet_tiny_', 'rtmdet/rtmdet_s_'),
        teacher='mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py',
    )
    assert connected(model) == [(128, 96)] * 3


@pytest.mark.parametrize('config', ALL)
def test_every_config_names_only_bases_that_travel_with_it(config):
    """A `package::` base for the COCO configs; the others also have siblings."""
    bases = re.findall(r"^_base_ = '(.+)'", (ROOT / config).read_text(), re.MULTILINE)
    assert len(bases) == 1
    package = ('mmyolo::', 'mmdet::')
    assert bases[0].startswith(package if 'coco' in config else (*package, './'))


def test_options_reach_the_values_computed_from_them(kd_config):
    cfg = load_config(
        kd_config,
        {
            'max_epochs': 12,
            'num_epochs_stage2': 2,
            'base_lr': 0.01,
            'img_scale': [320, 320],
            'class_names': ['a', 'b'],
            'data_root': 'elsewhere/',
            'model.distiller.distill_losses.loss_pkd_fpn0.tau': 3.0,
        },
    )
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.train_cfg.dynamic_intervals[0][0] == 10
    assert [hook.get('switch_epoch', hook.get('detach_epoch')) for hook in cfg.custom_hooks] == [
        None,
        10,
        10,
    ]
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.param_scheduler[1].eta_min == pytest.approx(0.0005)
    assert cfg.param_scheduler[1].end == 12
    assert cfg.model.architecture.bbox_head.head_module.num_classes == 2
    assert cfg.model.architecture.train_cfg.assigner.num_classes == 2
    assert cfg.train_dataloader.dataset.pipeline[3].img_scale == (320, 320)
    assert cfg.val_evaluator.ann_file == 'elsewhere/annotations/val.json'
    losses = expand(cfg.model.distiller).distill_losses
    assert losses.loss_pkd_fpn0.tau == 3.0
    assert losses.loss_pkd_fpn1.tau == 1.0


@pytest.mark.parametrize(
    'text, options, expected',
    [
        ('epochs: int = 300\nend = epochs', dict(epochs=3), dict(epochs=3, end=3)),
        ('if True:\n    size = (64, 64)\nscale = size', dict(size=[32, 32]), dict(scale=(32, 32))),
        (
            'lr = base_lr = 0.1\nend = base_lr',
            dict(base_lr=0.2),
            dict(lr=0.1, base_lr=0.2, end=0.2),
        ),
        ('width, height = 64, 64\nsize = height', dict(height=32), dict(width=64, size=32)),
        ('epochs = 100\nepochs *= 2', dict(epochs=30), dict(epochs=30)),
        ('def f():\n    epochs = 3\n    return epochs\nend = f()', dict(end=2), dict(end=2)),
        ('for epochs in (1, 2):\n    pass', dict(epochs=5), dict(epochs=5)),
        ('if False:\n    load_from = 1', dict(load_from='a'), dict(load_from='a')),
    ],
)
def test_an_option_replaces_a_name_however_the_config_assigns_it(tmp_path, text, options, expected):
    (tmp_path / 'own.py').write_text(text)
    cfg = load_config(str(tmp_path / 'own.py'), options)
    assert {name: cfg[name] for name in expected} == expected


def test_an_option_reaches_a_config_in_json(tmp_path):
    (tmp_path / 'own.json').write_text('{"max_epochs": 300}')
    assert load_config(str(tmp_path / 'own.json'), dict(max_epochs=3)).max_epochs == 3


def test_a_student_sees_its_teachers_augmentation():
    """Mixup of every image: a milder one harms a distillation (docs/own_data.md)."""
    files = sorted(map(str, (ROOT / 'configs/custom_dataset').glob('*.py')))
    recipe = get_config('mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py')
    published = {step.type: step for step in recipe.train_pipeline if step.get('use_cached')}
    for options, prob in ({}, 1.0), (dict(mixup_prob=0.25), 0.25):
        for file in files:
            pipeline = load_config(file, options).train_dataloader.dataset.pipeline
            cached = {step.type: step for step in pipeline if step.get('use_cached')}
            assert cached.keys() == published.keys()
            for name, step in cached.items():
                assert step.max_cached_images == published[name].max_cached_images
            assert cached['YOLOv5MixUp'].prob == prob


def test_no_config_changes_a_list_of_its_base_by_index():
    """An added hook or step in a base would shift every index after it."""
    for config in ALL:
        # Names whose values come from a base.
        taken = {'_base_'}
        for node in ast.walk(ast.parse((ROOT / config).read_text())):
            if isinstance(node, ast.Assign) and _names(node.value) & taken:
                taken.update(*map(_names, node.targets))
            if isinstance(node, ast.Subscript) and _names(node.value) & taken:
                key = getattr(node.slice, 'value', None)
                assert isinstance(key, str), f'{config}, line {node.lineno}'


def _names(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def test_coco_options_reach_head_assigner_schedule_and_detach():
    cfg = load_config(
        str(ROOT / 'configs/kd_tiny_rtmdet_s_neck_300e_coco.py'),
        {
            'num_classes': 3,
            'max_epochs': 31,
            'num_epochs_stage2': 6,
            'data_root': 'd/',
            'img_scale': [320, 320],
        },
    )
    # MMYOLO's transforms refuse a list.
    assert cfg.train_dataloader.dataset.pipeline[2].img_scale == (320, 320)
    assert cfg.model.architecture.num_classes == 3
    assert cfg.train_cfg.max_epochs == 31
    cosine = cfg.param_scheduler[1]
    assert (cosine.begin, cosine.end) == (15, 31)
    # Otherwise it would rise again in the last epoch.
    assert cosine.T_max == cosine.end - cosine.begin
    assert cfg.custom_hooks[1].switch_epoch == cfg.custom_hooks[2].detach_epoch == 25
    assert cfg.test_dataloader.dataset.data_root == 'd/'
    assert cfg.test_evaluator.ann_file.startswith('d/')


def test_model_options_in_mmengines_own_way_reach_num_classes_too():
    cfg = Config.fromfile(ROOT / 'configs/kd_tiny_rtmdet_s_neck_300e_coco.py')
    cfg.merge_from_dict({'model.architecture.num_classes': 3, 'model.teacher_ckpt': 'random'})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        assert MODELS.build(cfg.model).student.bbox_head.num_classes == 3


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(max_epoch=3), 'has no "max_epoch"; did you mean "max_epochs"'),
        ({'modle.teacher_ckpt': 'x'}, 'has no "modle"; did you mean "model"'),
    ],
)
def test_an_option_that_nothing_reads_is_refused(kd_config, options, message):
    with pytest.raises(ValueError, match=message):
        load_config(kd_config, options)


def test_a_base_that_is_missing_is_named(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text("_base_ = './elsewhere.py'\n")
    with pytest.raises(ValueError, match=r'own\.py.*elsewhere\.py'):
        load_config(str(config))


def test_reading_a_config_leaves_mmengine_as_it_was(kd_config):
    load_config(kd_config, dict(max_epochs=5))
    assert Config.fromfile(kd_config).max_epochs == 32


def test_rtm_kd_imports_nothing_of_mmyolo():
    code = 'import rtm_kd, sys; sys.exit(any(m.split(".")[0] == "mmyolo" for m in sys.modules))'
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=False).returncode == 0
    for path in (ROOT / 'rtm_kd').rglob('*.py'):
        assert not re.search(r'^\s*(import|from) mmyolo', path.read_text(), re.MULTILINE), path
