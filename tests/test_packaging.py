import shutil
import subprocess
import sys
import venv
import zipfile
from collections import Counter
from pathlib import Path

import mmyolo
import pytest
import yaml
from helpers import ROOT


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    # Built from a copy, because a build leaves folders behind.
    names = subprocess.check_output(['git', 'ls-files', '-z'], cwd=ROOT, text=True).split('\0')
    for name in filter(None, names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
        + ['-w', str(folder), str(source)],
        check=True,
    )
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / 'installed')
    return folder / 'installed'


@pytest.fixture(scope='module')
def opted_in(installed, tmp_path_factory):
    """The Python of an environment after ``python -m rtm_kd.compat enable``."""
    folder = tmp_path_factory.mktemp('env')
    venv.create(folder, symlinks=True)
    python = folder / 'bin/python'
    done = run(installed, folder, '-m', 'rtm_kd.compat', 'enable', python=python)
    assert done.returncode == 0, done.stderr
    return python


def run(installed, folder, *args, python=sys.executable):
    packages = [path for path in sys.path if path.endswith('-packages')]
    return subprocess.run(
        [str(python), '-W', 'ignore', *map(str, args)],
        env={
            'PYTHONPATH': ':'.join([str(installed), *packages]),
            'PATH': '',
            'OMP_NUM_THREADS': '1',
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    'base',
    [
        'rtmdet/kd_tiny_rtmdet_s_neck_300e_coco.py',
        'custom_dataset/kd_student_teacher.py',
    ],
)
def test_a_users_config_can_have_ours_as_its_base(installed, tmp_path, base):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'rtm_kd::{base}'\nloss_weight = 2.0\n")
    program = (
        'import rtm_kd\n'
        'from mmengine.config import Config\n'
        "cfg = Config.fromfile('mine.py')\n"
        'print(cfg.model.type, cfg.loss_weight, cfg.custom_imports)'
    )
    done = run(installed, tmp_path, '-c', program)
    assert done.returncode == 0, done.stderr
    assert "rtm_kd.FpnTeacherDistill 2.0 {'imports': ['rtm_kd']" in done.stdout


def test_mim_finds_tools_and_index(installed, tmp_path):
    mim = installed / 'rtm_kd' / '.mim'
    done = run(installed, tmp_path, mim / 'tools/train.py', '--help')
    assert done.returncode == 0, done.stderr
    assert 'Example' in done.stdout
    program = (
        'import rtm_kd\n'
        'from mmengine.hub import get_config\n'
        "print(get_config('rtm_kd::rtmdet/kd_s_rtmdet_m_neck_300e_coco.py').max_epochs)"
    )
    assert run(installed, tmp_path, '-c', program).stdout.strip().endswith('300')
    assert not list(mim.rglob('run_tests.sh'))


# A user's config beside MMYOLO's with ours as the base: one training step.
MINE = """
_base_ = 'rtm_kd::custom_dataset/kd_student_teacher.py'
model = dict(teacher_ckpt='random', architecture=dict(num_classes=2))
dataset = dict(data_root={data_root!r}, metainfo=dict(classes=('disc', 'square')))
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset)
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(ann_file={data_root!r} + 'annotations/val.json')
train_cfg = dict(max_epochs=1, val_interval=9, dynamic_intervals=None)
custom_hooks = []
"""


def test_mmyolos_own_tool_trains_with_our_config_as_base(installed, opted_in, data_root, tmp_path):
    (tmp_path / 'mine.py').write_text(MINE.format(data_root=f'{data_root}/'))
    train = Path(mmyolo.__path__[0], '.mim/tools/train.py')
    done = run(installed, tmp_path, train, 'mine.py', python=opted_in)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / 'work_dirs/mine').glob('*.pth'))


def index_files(root):
    return [
        root / path for path in yaml.safe_load((root / 'model-index.yml').read_text())['Import']
    ]


def test_every_recipe_of_the_metafile_exists(installed):
    for root in (ROOT, installed / 'rtm_kd' / '.mim'):
        for index in index_files(root):
            for model in yaml.safe_load(index.read_text())['Models']:
                assert (root / model['Config']).is_file()
                assert model['Name'] == Path(model['Config']).stem


def test_mim_finds_each_config_by_its_name_alone(installed):
    # "mim train rtm_kd CONFIG" searches the package, and refuses a name found twice.
    counted = Counter(path.name for path in (installed / 'rtm_kd').rglob('*_*.py'))
    names = [path.name for path in (ROOT / 'configs').rglob('*.py')]
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)
