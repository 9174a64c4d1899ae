"""tools/distill.py: from a folder of images to a distilled detector."""

import importlib
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from helpers import CLASSES, ROOT, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from rtm_kd.apis.distill import distill
from rtm_kd.apis.train import train
from rtm_kd.checks.config import check_data_files
from rtm_kd.datasets.write_configs import choose_schedule, render
from rtm_kd.utils import load_config, say
from rtm_kd.utils.checkpoint import read_checkpoint

# Twelve images in batches of five: the last batch of an epoch has two.
QUICK = dict(student='tiny', teacher='s', img_size=64, batch_size=5, epochs=2, num_workers=0)
TEACHER, STUDENT = 'rtmdet_s_Bilder_für_KI', 'kd_tiny_rtmdet_s_Bilder_für_KI'


def call(data_root, **options):
    templates = str(ROOT / 'configs/custom_dataset')
    return distill(say, data_root=str(data_root), templates=templates, **{**QUICK, **options})


def dry(data_root, **options):
    return call(data_root, dry_run=True, **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unchecked(monkeypatch):
    """Skip the checks that build models, for tests of the configs alone."""
    module = importlib.import_module('rtm_kd.apis.distill')
    monkeypatch.setattr(module, '_check_configs', lambda *args, **kwargs: None)


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory):
    """Train a teacher and its student by one command; return its output."""
    folder = tmp_path_factory.mktemp('ein Lauf')
    shutil.copytree(data_root, folder / 'Bilder für KI')
    options = [f'--{name.replace("_", "-")}={value}' for name, value in QUICK.items()]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        said = run_tool(
            'distill.py',
            '--data-root=Bilder für KI/',
            '--train-teacher',
            '--teacher-epochs=2',
            *options,
        )
    return folder, said


def test_one_command_trains_a_teacher_and_a_student(run):
    folder, said = run
    assert 'train: images: 12, boxes: 12 (disc 6, square 6)' in said
    assert sorted(os.listdir(folder / 'configs/Bilder für KI')) == [
        f'{STUDENT}.py',
        f'{TEACHER}.py',
        'rtmdet_tiny_Bilder_für_KI.py',
    ]
    for name, channels in ((TEACHER, 16), (STUDENT, 12)):
        weights = read_checkpoint(str(folder / 'work_dirs' / name / 'best.pth'))['state_dict']
        assert weights['backbone.stem.0.conv.weight'].shape[0] == channels
        assert {key.split('.')[0] for key in weights} == {'backbone', 'neck', 'bbox_head'}
        log = next((folder / 'work_dirs' / name).glob('*/vis_data/scalars.json'))
        steps = [json.loads(line) for line in log.read_text().splitlines()]
        assert any('distill.loss_pkd_fpn0' in step for step in steps) == (name == STUDENT)


def test_the_result_is_a_plain_detector_and_the_command_to_test_it(run, monkeypatch):
    folder, said = run
    monkeypatch.chdir(folder)
    command = shlex.split(said.splitlines()[-1].removeprefix('to test it: '))
    python, test, config, checkpoint = command
    assert python == 'python' and (folder / test).samefile(ROOT / 'tools/test.py')
    cfg = load_config(config)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        model = MODELS.build(cfg.model)
    model.load_state_dict(read_checkpoint(checkpoint)['state_dict'], strict=True)
    check_data_files(cfg, 'test')


def test_a_rerun_trains_only_what_is_missing(run, here, capsys):
    shutil.copytree(run[0], here, dirs_exist_ok=True)
    student = here / 'work_dirs' / STUDENT
    # As if the run had been stopped in the second epoch.
    for path in [*student.glob('*best*'), student / 'epoch_2.pth', student / 'last_checkpoint']:
        path.unlink()
    with pytest.raises(ValueError, match=r'holds an unfinished run \(epoch_1.*--resume'):
        call('Bilder für KI', train_teacher=True, teacher_epochs=2)
    call('Bilder für KI', train_teacher=True, teacher_epochs=2, resume=True)
    said = capsys.readouterr()
    assert f'the teacher is trained already: work_dirs/{TEACHER}/best.pth' in said.out
    assert 'resumed epoch: 1' in said.out + said.err
    assert (student / 'best.pth').is_file()
    call('Bilder für KI', train_teacher=True, teacher_epochs=2)
    assert 'the student is trained already' in capsys.readouterr().out


def test_a_teacher_that_found_almost_nothing_gives_a_warning(
    here, unchecked, data_root, monkeypatch, capsys
):
    module = importlib.import_module('rtm_kd.apis.distill')
    monkeypatch.setattr(module, '_train', lambda run, *_: 0.05)
    call(data_root, train_teacher=True, name='n')
    printed = capsys.readouterr().out
    assert 'warning: a teacher with a mAP of 0.050 has little to teach' in printed
    assert 'on COCO' not in printed


@pytest.mark.parametrize('student, said', [(0.31, True), (0.29, False)])
def test_a_teacher_no_better_than_its_student_gives_a_warning(
    here, unchecked, data_root, monkeypatch, capsys, student, said
):
    scores = dict(teacher=0.3, student=student)
    module = importlib.import_module('rtm_kd.apis.distill')
    monkeypatch.setattr(module, '_train', lambda run, *_: scores[run.who])
    call(data_root, train_teacher=True, name='n')
    # The command quotes a path with a space.
    printed = capsys.readouterr().out.replace("'", '')
    assert ('caught up with its teacher, 0.310 to 0.300' in printed) == said
    # 41.0 to 44.6 on COCO.
    assert 'which would be 0.276 to 0.300 here' in printed
    assert ('tools/compare.py configs/n/kd_tiny_rtmdet_s_n.py' in printed) == said


def test_an_existing_config_is_not_overwritten(here, unchecked, data_root):
    paths = dry(data_root, name='mine', train_teacher=True).configs
    mine = paths.teacher.read_text().replace('max_epochs = 4', 'max_epochs = 7')
    paths.teacher.write_text(mine)
    with pytest.raises(ValueError, match=r'rtmdet_s_mine\.py exists.*max_epochs = 7.*max_epochs'):
        dry(data_root, name='mine', train_teacher=True)
    assert paths.teacher.read_text() == mine
    dry(data_root, name='mine', train_teacher=True, overwrite=True)
    assert paths.teacher.read_text() != mine


@pytest.mark.parametrize(
    'options, teacher, student',
    [
        (dict(epochs=20), 40, 20),
        (dict(epochs=20, teacher_epochs=50), 50, 20),
        # COCO weights need a lower learning rate.
        (dict(epochs=20, teacher_ckpt='coco'), 20, 20),
    ],
)
def test_a_teacher_from_scratch_is_trained_for_longer(
    here, unchecked, data_root, options, teacher, student
):
    paths = dry(data_root, train_teacher=True, name='n', **options).configs
    epochs = [load_config(str(path)).max_epochs for path in (paths.teacher, paths.distillation)]
    assert epochs == [teacher, student]
    cfg = load_config(str(paths.distillation))
    # A tenth of the student's epochs, not of the teacher's.
    assert cfg.num_epochs_stage2 == student // 10


def test_a_run_of_another_config_is_not_resumed(here, unchecked, data_root):
    (here / 'work_dirs/rtmdet_s_mine').mkdir(parents=True)
    torch.save({}, here / 'work_dirs/rtmdet_s_mine/epoch_1.pth')
    with pytest.raises(ValueError, match='holds a run of another config'):
        dry(data_root, name='mine', train_teacher=True, resume=True)


def published(size):
    return get_config(f'mmyolo::rtmdet/rtmdet_{size}_syncbn_fast_8xb32-300e_coco.py').model


def cached_steps(pipeline):
    return [step for step in pipeline if step.type in ('Mosaic', 'YOLOv5MixUp')]


@pytest.mark.parametrize('student, teacher', [('tiny', 'x'), ('x', 'tiny'), ('s', 's'), ('m', 'l')])
def test_configs_of_every_pair_have_the_requested_values(
    here, unchecked, data_root, student, teacher
):
    sizes = dict(student=student, teacher=teacher)
    paths = dry(data_root, **sizes, teacher_ckpt='random', epochs=20, name='n').configs
    cfg = load_config(str(paths.distillation))
    assert cfg.model.teacher_ckpt == 'random'
    for size, model in (
        (student, load_config(str(paths.student)).model),
        (student, cfg.model.architecture),
        (teacher, load_config(cfg.model.teacher).model),
    ):
        for part in ('backbone', 'neck'):
            for factor in ('deepen_factor', 'widen_factor'):
                assert model[part][factor] == published(size)[part][factor]
    for path in vars(paths).values():
        mosaic, mixup = cached_steps(load_config(str(path)).train_dataloader.dataset.pipeline)
        # There are twelve images.
        assert (mosaic.max_cached_images, mixup.max_cached_images) == (12, 6)
        assert mixup.prob == 1.0
    assert cfg.class_names == CLASSES
    assert cfg.train_cfg.max_epochs == 20
    assert cfg.custom_hooks[1].switch_epoch == cfg.custom_hooks[2].detach_epoch == 18


def test_only_values_at_the_top_differ_from_the_hand_written_configs(here, unchecked, data_root):
    paths = dry(data_root, teacher_ckpt='random', name='n').configs
    for path, template in (
        (paths.teacher, 'rtmdet_teacher.py'),
        (paths.student, 'rtmdet_student.py'),
        (paths.distillation, 'kd_student_teacher.py'),
    ):
        texts = [path.read_text(), (ROOT / 'configs/custom_dataset' / template).read_text()]
        bodies = [text[text.index('\nmodel = dict(') :] for text in texts]
        assert bodies[0] == bodies[1]
        comments = [[line for line in text.splitlines() if line[:3] == '# ='] for text in texts]
        assert comments[0] == comments[1]


def test_a_value_is_replaced_and_nothing_else_changes(tmp_path):
    template = tmp_path / 'template.py'
    template.write_text(
        "# Old\n# title.\n_base_ = './a.py'\n\nnames = (\n    'a',\n)  # why\nn = 3\n"
    )
    text = render(template, 'New.', dict(names=('Äpfel', "it's"), n=None))
    assert text == "# New.\n_base_ = './a.py'\n\nnames = ('Äpfel', \"it's\")  # why\nn = None\n"
    many = tuple(f'class {i}' for i in range(20))
    long = render(template, 'New.', dict(names=many))
    assert max(map(len, long.splitlines())) < 100
    assert Config.fromstring(long.replace("'./a.py'", '[]'), '.py').names == many
    with pytest.raises(KeyError):
        render(template, 'New.', dict(other=1))


def test_the_defaults_fit_the_number_of_images():
    for images in (2, 12, 100, 205, 3000, 50000):
        schedule = choose_schedule(images)
        iterations = -(-images // schedule.train_batch_size_per_gpu)
        assert 1 <= schedule.train_batch_size_per_gpu <= images
        assert 50 <= schedule.max_epochs <= 300
        assert schedule.lr_warmup_iters <= min(1000, schedule.max_epochs * iterations / 10)
        assert 0 < schedule.num_epochs_stage2 <= schedule.max_epochs / 5
        assert 1 <= schedule.val_interval <= schedule.max_epochs / 5
    assert choose_schedule(205).train_batch_size_per_gpu == 8
    assert choose_schedule(9999, batch_size=256).base_lr == 0.004
    assert choose_schedule(9999, batch_size=64).base_lr == 0.002
    assert choose_schedule(9999, batch_size=64, pretrained=True).base_lr == 0.001
    assert choose_schedule(205, pretrained=True).max_epochs < choose_schedule(205).max_epochs
    one = choose_schedule(3, epochs=1)
    assert (one.num_epochs_stage2, one.val_interval) == (0, 1)


def test_teacher_ckpt_coco_is_the_published_checkpoint(here, unchecked, data_root, capsys):
    paths = dry(data_root, teacher_ckpt='coco', student_ckpt='coco', name='n').configs
    cfg = load_config(str(paths.distillation))
    assert cfg.model.teacher_ckpt.endswith('-0a8c901a.pth')
    # "coco" is MMRazor's distilled checkpoint; "coco-plain" the undistilled one.
    assert cfg.load_from.endswith('kd_tiny_rtmdet_s_neck_300e_coco_20230213_104240-e1e4197c.pth')
    plain = dry(data_root, teacher_ckpt='coco-plain', student_ckpt='coco-plain', name='p').configs
    assert load_config(str(plain.student)).load_from.endswith('-dbb1dc83.pth')
    assert load_config(str(plain.distillation)).model.teacher_ckpt == cfg.model.teacher_ckpt
    assert load_config(str(paths.student)).load_from == cfg.load_from
    assert load_config(str(paths.teacher)).load_from is None
    assert capsys.readouterr().out.count('trained on COCO and not on your data') == 2


def test_student_ckpt_reaches_the_student(run, here, unchecked, data_root):
    best = run[0] / 'work_dirs' / STUDENT / 'best.pth'
    weights = read_checkpoint(str(best))['state_dict']
    # With other classes the classification layers are not loaded.
    name = 'bbox_head.head_module.rtm_cls.0.weight'
    weights[name] = torch.zeros(5, *weights[name].shape[1:])
    torch.save(dict(state_dict=weights), here / 'start.pth')
    paths = dry(data_root, teacher_ckpt='random', student_ckpt='start.pth', name='n').configs
    cfg = load_config(str(paths.distillation))
    with DefaultScope.overwrite_default_scope('mmyolo'):
        model = MODELS.build(cfg.model)
    load_checkpoint(model, cfg.load_from)
    state = model.student.state_dict()
    for name, value in weights.items():
        if name.startswith('backbone.'):
            torch.testing.assert_close(state[name], value)


@pytest.mark.parametrize(
    'options, message',
    [
        ({}, r'no teacher\. --train-teacher .*--teacher-ckpt FILE .*--teacher-ckpt coco'),
        (dict(teacher_ckpt='nowhere.pth'), r'no checkpoint file nowhere\.pth'),
        (dict(teacher_ckpt='student.pth'), 'does not fit the teacher.*another size'),
        (dict(teacher_ckpt='random', student_ckpt='teacher.pth'), 'does not fit the student.*size'),
        (dict(train_teacher=True, batch_size=13), '--batch-size 13 is more than the 12 images'),
        (dict(train_teacher=True, img_size=100), 'multiple of 32.*100'),
        (dict(train_teacher=True, epochs=0), '--epochs must be above 0, got 0'),
        (dict(teacher_ckpt='t.pth', teacher_epochs=9), '--teacher-epochs .*add --train-teacher'),
        (dict(train_teacher=True, config_out='student.pth'), 'student.pth is not.*--config'),
        (dict(train_teacher=True, work_dir='student.pth/runs'), 'student.pth is not.*--work'),
        (dict(train_teacher=True, student='xs'), '--student must be one of tiny, s.*"xs"'),
        (dict(train_teacher=True, classes=['disc', 'disc']), "two classes of one name: 'disc'"),
    ],
)
def test_a_refused_command_leaves_no_config_behind(run, here, data_root, options, message):
    for file, name in (('teacher.pth', TEACHER), ('student.pth', STUDENT)):
        shutil.copy(run[0] / 'work_dirs' / name / 'best.pth', here / file)
    with pytest.raises(ValueError, match=message) as refused:
        dry(data_root, **options)
    assert '\n' not in str(refused.value)
    assert not (here / 'configs').exists() and not (here / 'work_dirs').exists()


def test_the_config_folder_may_have_any_name(here, unchecked, data_root):
    folder = '"it\'s" \\ {{ fileBasename }}'
    paths = dry(data_root, teacher_ckpt='random', config_out=folder, name='n').configs
    model = load_config(str(paths.distillation)).model
    assert Path(model.teacher).samefile(paths.teacher)
    assert model.architecture == load_config(str(paths.student)).model


@pytest.mark.parametrize('option', ['config_out', 'work_dir'])
def test_an_unwritable_folder_is_found_before_any_model_is_built(
    here, data_root, monkeypatch, option
):
    (here / 'locked').mkdir()
    # root may write anywhere.
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name != 'locked')
    with pytest.raises(ValueError, match=f'locked.*--{option.replace("_", "-")}'):
        dry(data_root, train_teacher=True, **{option: 'locked/new'})


def test_a_dry_run_prints_only_what_the_user_needs(here, data_root, capfd):
    dry(data_root, train_teacher=True, amp=True, name='n')
    said = capfd.readouterr()
    lines = (said.out + said.err).splitlines()
    assert not [line for line in lines if 'index' in line or 'registry' in line]
    commands = [shlex.split(line.split(': ')[1]) for line in lines if line.startswith('to train')]
    for command, config in zip(commands, ('rtmdet_s_n.py', 'kd_tiny_rtmdet_s_n.py')):
        tool, trained, *options = command[1:]
        assert (here / tool).samefile(ROOT / 'tools/train.py')
        assert (here / trained).name == config
        assert '--amp' in options


def test_a_teacher_of_other_classes_is_pointed_out(run, here, unchecked, data_root, capsys):
    teacher = read_checkpoint(str(run[0] / 'work_dirs' / TEACHER / 'best.pth'))
    teacher['meta']['dataset_meta']['classes'] = ('cat', 'dog')
    torch.save(teacher, here / 'other.pth')
    dry(data_root, teacher_ckpt='other.pth', name='other')
    assert 'other classes (cat, dog); only its backbone and neck' in capsys.readouterr().out


@pytest.mark.parametrize(
    'metainfo', [['cat'], dict(classes=[1, 2]), dict(classes=[['cat']]), dict(classes=3)]
)
def test_a_teacher_whose_class_names_are_not_strings_gives_no_warning(
    run, here, unchecked, data_root, capsys, metainfo
):
    teacher = read_checkpoint(str(run[0] / 'work_dirs' / TEACHER / 'best.pth'))
    teacher['meta']['dataset_meta'] = metainfo
    torch.save(teacher, here / 'other.pth')
    dry(data_root, teacher_ckpt='other.pth', name='other')
    assert 'other classes' not in capsys.readouterr().out


def test_a_batch_larger_than_the_dataset_is_refused(plain_config, options, tmp_path):
    options.pop('teacher_ckpt')
    options['train_batch_size_per_gpu'] = 13
    with pytest.raises(ValueError, match='a batch has 13 images, and there are 12'):
        train(plain_config, work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert not (tmp_path / 'run').exists()
