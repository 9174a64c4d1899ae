import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    # Not from the checkout, in which a build leaves folders.
    subprocess.run(['git', 'clone', '-q', str(ROOT), str(source)], check=True)
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
        + ['-w', str(folder), str(source)],
        check=True,
    )
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / 'installed')
    return folder / 'installed'


def run(installed, folder, *args):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, args)],
        env={'PYTHONPATH': str(installed), 'PATH': ''},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    'base',
    [
        'rtmdet/kd_tiny_rtmdet_s_neck_300e_coco.py',
        'custom_dataset/kd_tiny_rtmdet_s_bccd.py',
    ],
)
def test_a_config_of_ones_own_can_have_ours_as_its_base(installed, tmp_path, base):
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


def test_every_recipe_of_the_metafile_exists():
    import yaml

    for index in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((ROOT / index).read_text())['Models']:
            assert (ROOT / model['Config']).is_file()
            assert model['Name'] == (ROOT / model['Config']).stem
