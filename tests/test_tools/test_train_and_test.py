"""Training, testing and converting with the tools, and messages for user errors."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import mmyolo
import pytest
import torch
from helpers import ROOT, as_arguments, make_options, tool
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from rtm_kd.apis import test as testing
from rtm_kd.apis.test import test as run_test
from rtm_kd.apis.train import train
from rtm_kd.compat.checkpoint_load import load
from rtm_kd.utils import errors, report_usage_errors
from rtm_kd.utils.checkpoint import convert_to_student


@pytest.fixture(scope='session')
def teacher(data_root, tmp_path_factory):
    """Work dir of a teacher trained for one epoch by the real tool."""
    work_dir = tmp_path_factory.mktemp('teacher')
    # With a worker process, which must not keep the tool from exiting.
    options = {**make_options(data_root), 'max_epochs': 1, 'train_num_workers': 1}
    options.pop('teacher_ckpt')
    done = tool(
        'train.py',
        ROOT / 'configs/custom_dataset/rtmdet_teacher.py',
        '--work-dir',
        work_dir,
        '--cfg-options',
        *as_arguments(options),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # A user can't change what the packages below warn of.
    assert not re.findall('.*(?:Warning: | deprecated).*', done.stdout + done.stderr)
    return work_dir


@pytest.fixture(scope='session')
def run(data_root, teacher, tmp_path_factory):
    """A distillation from that teacher, stopped after the first epoch and resumed."""
    work_dir = tmp_path_factory.mktemp('kd')
    options = {**make_options(data_root), 'teacher_ckpt': teacher / 'epoch_1.pth'}
    config = ROOT / 'configs/custom_dataset/kd_student_teacher.py'
    arguments = [config, '--work-dir', work_dir, '--cfg-options', *as_arguments(options)]
    first = tool('train.py', *arguments, 'max_epochs=1', 'num_epochs_stage2=0')
    assert first.returncode == 0, first.stderr
    resumed = tool('train.py', config, '--resume', *arguments[1:])
    assert resumed.returncode == 0, resumed.stderr
    assert 'resumed epoch: 1' in resumed.stdout + resumed.stderr
    return work_dir


def metrics(work_dir):
    newest = max(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return {k: v for k, v in json.loads(newest.read_text()).items() if k.startswith('coco/')}


def log(work_dir):
    return next(work_dir.glob('*/*.log')).read_text().splitlines()


def test_train_resume_test_convert(run, plain_config, kd_config, options, tmp_path):
    assert (run / 'epoch_3.pth').is_file()
    options.pop('teacher_ckpt')
    arguments = ['--cfg-options', *as_arguments(options)]
    kd_options = arguments + ['teacher_ckpt=nowhere.pth']

    tested = tool(
        'test.py', kd_config, run / 'epoch_3.pth', '--work-dir', tmp_path / 'a', *kd_options
    )
    assert tested.returncode == 0, tested.stderr
    converter = 'model_converters/convert_kd_ckpt_to_student.py'
    converted = tool(converter, run / 'epoch_3.pth', '--out-path', tmp_path / 'out')
    assert converted.returncode == 0, converted.stderr
    student = tmp_path / 'out' / 'epoch_3_student.pth'
    plain = tool('test.py', plain_config, student, '--work-dir', tmp_path / 'b', *arguments)
    assert plain.returncode == 0, plain.stderr

    assert metrics(tmp_path / 'a') == metrics(tmp_path / 'b')
    assert 'coco/bbox_mAP' in metrics(tmp_path / 'a')


def test_test_saves_predictions_and_pictures(distilled, kd_config, options, tmp_path):
    run_test(
        kd_config,
        str(distilled / 'epoch_3.pth'),
        work_dir=str(tmp_path),
        out=str(tmp_path / 'predictions.pkl'),
        show_dir='pictures',
        cfg_options=options,
    )
    assert (tmp_path / 'predictions.pkl').stat().st_size > 0
    assert len(list(tmp_path.glob('*/pictures/*.png'))) == 12


def test_the_detections_of_each_coco_metric_are_written(kd_config, options, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(testing, 'read_checkpoint', lambda _: dict(state_dict={}))
    monkeypatch.setattr(
        testing,
        'build_test_runner',
        lambda cfg, *_: seen.append(cfg) or SimpleNamespace(test=dict),
    )
    options['test_evaluator'] = [dict(type='mmdet.CocoMetric'), dict(type='mmdet.VOCMetric')]
    run_test(kd_config, '', str(tmp_path), json_prefix='out', cfg_options=options)
    coco, voc = seen[0].test_evaluator
    assert coco == dict(type='mmdet.CocoMetric', format_only=True, outfile_prefix='out')
    assert voc == dict(type='mmdet.VOCMetric')


@pytest.mark.parametrize(
    'arguments, changes, message',
    [
        (dict(json_prefix='a'), dict(test_evaluator=dict(type='VOCMetric')), "has .'VOCMetric'"),
        (dict(show=True), dict(default_hooks=None), r'default_hooks\.visualization'),
        (dict(show_dir='a'), dict(default_hooks={}), r'default_hooks\.visualization'),
    ],
)
def test_output_that_a_config_cannot_give_is_refused(
    kd_config, options, tmp_path, arguments, changes, message
):
    options = {name: value for name, value in options.items() if 'default_hooks' not in name}
    with pytest.raises(ValueError, match=message):
        run_test(kd_config, 'a.pth', str(tmp_path), cfg_options={**options, **changes}, **arguments)


def test_the_distillation_checkpoint_holds_no_teacher(distilled):
    checkpoint = load(distilled / 'epoch_1.pth')
    for part in ('state_dict', 'ema_state_dict'):
        assert checkpoint[part]
        assert not any('teacher' in name for name in checkpoint[part])


def test_the_saved_weights_are_the_moving_average(distilled):
    checkpoint = load(distilled / 'epoch_3.pth')
    trained = checkpoint['ema_state_dict']
    for name, averaged in checkpoint['state_dict'].items():
        if averaged.is_floating_point():
            # After few steps the average is close to the last weights.
            off = (averaged - trained[f'module.{name}']).norm()
            assert off <= 0.1 * averaged.norm() + 0.01, name


@pytest.mark.parametrize('inplace', [False, True])
def test_a_converted_student_loads_strictly_under_mmyolos_own_config(
    distilled, tmp_path, inplace, data_root
):
    source = tmp_path / 'epoch_3.pth'
    shutil.copy(distilled / 'epoch_3.pth', source)
    target = convert_to_student(str(source), inplace=inplace)
    assert target == (source if inplace else tmp_path / 'epoch_3_student.pth')
    assert not list(tmp_path.glob('*.part'))

    own = tmp_path / 'own.py'
    own.write_text("_base_ = 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'\n")
    cfg = Config.fromfile(own)
    cfg.model.bbox_head.head_module.num_classes = 2
    cfg.model.train_cfg.assigner.num_classes = 2
    with DefaultScope.overwrite_default_scope('mmyolo'):
        model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(target)['state_dict'], strict=True)


def test_a_checkpoint_that_mmrazor_wrote_is_converted_too(distilled, tmp_path):
    checkpoint = load(distilled / 'epoch_3.pth')
    for name in [n for n in checkpoint['state_dict'] if n.startswith('architecture.')]:
        teacher = name.replace('architecture.', 'teacher.')
        checkpoint['state_dict'][teacher] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / 'razor.pth')
    state_dict = torch.load(convert_to_student(str(tmp_path / 'razor.pth')))['state_dict']
    assert state_dict.keys() == {
        n.removeprefix('architecture.')
        for n in checkpoint['state_dict']
        if n.startswith('architecture.')
    }


@pytest.mark.parametrize('content', [b'nothing', None])
def test_converting_a_checkpoint_without_a_student_is_refused(tmp_path, content):
    path = tmp_path / 'a.pth'
    if content:
        path.write_bytes(content)
    else:
        torch.save(dict(state_dict={'backbone.weight': torch.ones(1)}), path)
    before = path.read_bytes()
    done = tool('model_converters/convert_kd_ckpt_to_student.py', path, '--inplace')
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and 'a.pth' in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_an_error_is_one_sentence_with_a_non_zero_exit(name, kd_config, tmp_path):
    arguments = [kd_config] if name == 'train.py' else [kd_config, 'nowhere.pth']
    done = tool(name, *arguments, '--cfg-options', 'data_root=nowhere/', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert 'nowhere/annotations/' in done.stderr and 'docs/coco.md' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_distillation_config_of_mmyolos_own_is_told_what_is_faster(
    data_root, distilled, tmp_path, monkeypatch
):
    for split in ('train', 'val'):
        content = json.loads((data_root / f'annotations/{split}.json').read_text())
        names = enumerate(CocoDataset.METAINFO['classes'])
        content['categories'] = [dict(id=i, name=name) for i, name in names]
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
    options = dict(data_root=f'{tmp_path}/', teacher_ckpt=None, persistent_workers=False)
    for split in ('train', 'val'):
        options[f'{split}_ann_file'] = f'{split}.json'
        options[f'{split}_data_prefix'] = f'{data_root}/images/'
        options[f'{split}_num_workers'] = 0
    monkeypatch.setattr(Runner, 'train', lambda runner: None)
    name = 'rtmdet/distillation/kd_tiny_rtmdet_s_neck_300e_coco.py'
    config = Path(mmyolo.__path__[0], '.mim/configs', name)
    train(
        str(config), str(tmp_path / 'run'), cfg_options={**options, 'train_batch_size_per_gpu': 2}
    )
    (line,) = (line for line in log(tmp_path / 'run') if 'rtm_kd.FpnTeacherDistill' in line)
    assert 'WARNING' in line and 'mmrazor.StopDistillHook' in line
    assert 'dict(type="rtm_kd.DistillationLossDetachHook", detach_epoch=280)' in line
    assert not any('mmrazor' in line and 'WARNING' in line for line in log(distilled))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'val_ann_file': 'annotations/nothing.json'}, r'val annotation file .*nothing\.json'),
        ({'train_data_prefix': 'pictures/'}, 'train image folder .*pictures/ is missing'),
        ({'val_evaluator.ann_file': 'dataannotations/val.json'}, 'has to end in a slash'),
        ({'class_names': ['disc', 'cube']}, r"categories \['disc', 'square'\].*\['cube'\]"),
        ({'teacher_ckpt': None}, 'no teacher_ckpt'),
        ({'teacher_ckpt': 'nowhere.pth'}, r'no checkpoint file nowhere\.pth'),
        ({'model.architecture.num_classes': 7}, 'num_classes=7.*2 classes'),
        (
            {'model.distiller.connectors.fpn0_s.in_channel': 90},
            'connector "fpn0_s" expects 90 channels.*96',
        ),
        ({'custom_hooks.2.detach_epoch': -1}, 'detach_epoch.*-1'),
        ({'load_from': 'nowhere.pth'}, r'no checkpoint file nowhere\.pth'),
    ],
)
def test_a_refused_training_leaves_no_files(kd_config, options, tmp_path, changes, message):
    work_dir = tmp_path / 'run'
    with pytest.raises(ValueError, match=message):
        train(kd_config, work_dir=str(work_dir), cfg_options={**options, **changes})
    assert not work_dir.exists()


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'model.type': 'rtm_kd.FpnTeacherDistil'}, 'did you mean "rtm_kd.FpnTeacherDistill"'),
        ({'train_pipeline_stage2': [dict(type='mmdet.RandomFlop')]}, 'did you mean.*RandomFlip'),
        ({'custom_hooks.0.type': 'EMAHok'}, 'did you mean "EMAHook"'),
    ],
)
def test_a_typo_in_a_type_is_named_with_its_near_misses(
    kd_config, options, tmp_path, changes, message, capsys
):
    with pytest.raises(SystemExit) as stopped, report_usage_errors():
        train(
            kd_config,
            work_dir=str(tmp_path / 'run'),
            cfg_options={**options, 'max_epochs': 1, 'num_epochs_stage2': 1, **changes},
        )
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().split('\n')[-1]
    assert error.startswith('error: the config names the type')
    assert re.search(message, error), error
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID'])
@pytest.mark.parametrize('rank', [0, 3])
def test_the_first_rank_reports_an_error_unless_only_another_rank_has_one(
    variable, rank, monkeypatch, capsys
):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(rank))
    waited = []

    def wait(seconds):
        # torchrun ends this process once rank 0 has ended.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert capsys.readouterr().err == ''
        waited.append(seconds)

    monkeypatch.setattr(errors.time, 'sleep', wait)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(SystemExit) as stopped, report_usage_errors():
            raise errors.UsageError('the disk is not there')
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    if rank:
        assert said == 'error: process 3: the disk is not there\n' and len(waited) == 1
    else:
        assert said == 'error: the disk is not there\n' and not waited


@pytest.mark.parametrize('resume', [False, True])
def test_the_tested_weights_are_those_of_the_checkpoint_and_not_of_load_from(
    distilled, kd_config, options, tmp_path, monkeypatch, resume
):
    """A config that tools/distill.py writes for --student-ckpt has a load_from."""
    loaded = []
    for name in ('load_checkpoint', 'resume'):
        monkeypatch.setattr(Runner, name, lambda self, path, *_, **__: loaded.append(path))
    checkpoint = str(distilled / 'epoch_3.pth')
    options.update(load_from=str(distilled / 'epoch_2.pth'), resume=resume)
    run_test(kd_config, checkpoint, work_dir=str(tmp_path), cfg_options=options)
    assert loaded == []


def test_testing_weights_of_another_model_is_refused(distilled, options, tmp_path):
    options.pop('teacher_ckpt')
    with pytest.raises(ValueError, match=r'does not fit the model.*expected'):
        run_test(
            str(ROOT / 'configs/custom_dataset/rtmdet_teacher.py'),
            str(distilled / 'epoch_3.pth'),
            work_dir=str(tmp_path / 'run'),
            cfg_options=options,
        )
    assert not (tmp_path / 'run').exists()


def test_train_and_test_work_in_a_folder_with_spaces_and_non_ascii_letters(
    data_root, plain_config, options, tmp_path
):
    root = tmp_path / 'Bilder für KI'
    shutil.copytree(data_root, root)
    options.pop('teacher_ckpt')
    options.update(data_root=f'{root}/', max_epochs=1, num_epochs_stage2=1)
    runner = train(plain_config, work_dir=str(tmp_path / 'läufe 1'), cfg_options=options)
    assert runner.epoch == 1


def test_training_starts_for_an_unknown_user_without_a_home(tmp_path):
    (tmp_path / 'sitecustomize.py').write_text('import pwd\npwd.getpwuid = {}.__getitem__\n')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path), 'TMPDIR': str(tmp_path), 'HOME': ''}
    for name in ('MPLCONFIGDIR', 'TORCH_HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME'):
        environment.pop(name, None)
    done = tool('train.py', 'missing.py', env=environment)
    assert (done.returncode, done.stderr) == (2, 'error: there is no config file missing.py\n')
    # The temporary home is deleted with the process.
    assert not [*tmp_path.glob('rtm_kd_home_*')]
