import re
import shutil
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from mmcv import _ext

from rtm_kd.compat import __main__ as opt_in
from rtm_kd.compat import mmcv_ext, mmcv_version, package_configs

supplied = pytest.mark.skipif(
    _ext.__spec__.origin != mmcv_ext.__file__, reason='this mmcv has compiled operators'
)
# Starts Python as in an environment whose site-packages is the working directory.
# Errors in a .pth file go to standard error.
START = """
import site, sys
sys.stderr = sys.stdout
site.addsitedir('.')
print([type(finder).__name__ for finder in sys.meta_path if not isinstance(finder, type)])
"""
OURS = "['PackageConfigsFinder', 'MmcvVersionFinder', 'MmcvExtFinder']"


@pytest.fixture
def pth_file(tmp_path, monkeypatch):
    path = tmp_path / 'rtm_kd_compat.pth'
    monkeypatch.setattr(opt_in, 'pth_file', lambda: path)
    return path


@supplied
def test_mmdet_can_be_imported_without_rtm_kd_in_an_opted_in_environment(run_python, tmp_path):
    venv.create(tmp_path / 'env', symlinks=True)
    python = str(tmp_path / 'env/bin/python')
    packages = [path for path in sys.path if path.endswith('-packages')]

    def run(code: str) -> str:
        return run_python(code, executable=python, path=packages).splitlines()[-1]

    def call(action: str) -> str:
        return run(f"""
            import runpy, sys
            sys.argv = ['compat', {action!r}]
            runpy.run_module('rtm_kd.compat', run_name='__main__')
        """)

    assert call('enable').startswith(
        f'enabled: every Python process of this environment reads {tmp_path}'
    )
    loaded = run("""
        import mmdet.models, sys
        print(mmdet.models.RTMDetHead.__name__, 'rtm_kd' in sys.modules)
    """)
    assert loaded == 'RTMDetHead False'

    assert call('disable') == 'disabled'
    missing = run("""
        try:
            import mmcv._ext
        except ModuleNotFoundError as error:
            print(error)
    """)
    assert missing == "No module named 'mmcv._ext'"


def test_a_start_of_python_loads_the_finders_and_nothing_heavy(run_python, pth_file):
    opt_in.enable()

    output = run_python(
        START + "print({'mmcv', 'mmengine', 'numpy', 'rtm_kd', 'torch'} & {*sys.modules})", '-S'
    )

    assert output.splitlines() == [OURS, 'set()']


@pytest.fixture
def copies(monkeypatch, tmp_path):
    """Let the opt-in refer to copies of the modules in a folder of the given name."""

    def copy(name, exist=True):
        folder = tmp_path / name
        folder.mkdir()
        for module in (mmcv_ext, mmcv_version, package_configs):
            target = folder / Path(module.__file__).name
            if exist:
                shutil.copy(module.__file__, target)
            monkeypatch.setattr(module, '__file__', str(target))

    return copy


def test_python_starts_after_rtm_kd_was_uninstalled(run_python, pth_file, copies):
    copies('gone', exist=False)
    opt_in.enable()

    assert run_python(START, '-S').split() == ['[]']


@pytest.mark.parametrize('folder', ["it's", 'a "quoted" one', 'größer', '{braces}'])
def test_a_path_with_any_characters_works(run_python, pth_file, copies, folder):
    copies(folder)
    opt_in.enable()

    assert run_python(START, '-S').strip() == OURS


def test_status_reports_whether_the_opt_in_is_enabled(pth_file, monkeypatch):
    assert opt_in.status() == 'disabled'
    opt_in.enable()
    assert opt_in.status().startswith('enabled')
    monkeypatch.setattr(mmcv_ext, '__file__', '/elsewhere/rtm_kd/compat/mmcv_ext.py')
    assert 'another copy of rtm_kd' in opt_in.status()
    opt_in.enable()
    assert opt_in.status().startswith('enabled')
    opt_in.disable()
    assert opt_in.disable() == 'disabled'
    assert not pth_file.exists()


def test_the_pth_file_is_in_site_packages():
    assert opt_in.pth_file().parent == Path(sysconfig.get_paths()['purelib'])


@pytest.mark.parametrize('action', ['enable', 'disable'])
def test_site_packages_that_cannot_be_written_are_named(monkeypatch, tmp_path, capsys, action):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(opt_in, 'pth_file', lambda: tmp_path / 'file' / 'rtm_kd_compat.pth')

    monkeypatch.setattr('sys.argv', ['rtm_kd.compat', action])

    with pytest.raises(SystemExit) as exited:
        opt_in.main()

    assert exited.value.code == 2
    assert re.match(
        r'error: cannot change .*rtm_kd_compat\.pth.*of your own', capsys.readouterr().err
    )
