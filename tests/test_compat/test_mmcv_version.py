import importlib.util
from types import SimpleNamespace

import pytest
from helpers import ROOT


@pytest.mark.parametrize('version', ['2.0.0', '2.1.0', '2.2.0', '2.3.6'])
def test_any_mmcv_from_2_0_on_is_accepted(run_python, version):
    said = run_python(
        f"""
        import mmcv
        mmcv.__version__ = {version!r}
        import rtm_kd, mmdet, mmyolo, mmrazor
        print(mmcv.__version__)
        """
    )
    assert said.strip() == version


def test_an_editable_install_is_found(run_python, tmp_path):
    (tmp_path / 'checkout.py').write_text('import mmcv\nassert mmcv.__version__ == "2.0.1"')
    said = run_python(
        """
        import importlib.util, sys
        class Editable:
            def find_spec(self, name, path=None, target=None):
                if name == 'mmyolo':
                    return importlib.util.spec_from_file_location(name, 'checkout.py')
        import mmcv
        mmcv.__version__ = '2.1.0'
        from rtm_kd.compat import mmcv_version
        for name in [name for name in sys.modules if name.startswith('mmyolo')]:
            del sys.modules[name]
        finder = next(f for f in sys.meta_path if isinstance(f, mmcv_version.MmcvVersionFinder))
        sys.meta_path[:] = [finder, Editable()]
        import mmyolo
        print(mmyolo.__file__)
        """
    )
    assert said.strip().endswith('checkout.py')


def test_other_mmcv_versions_are_refused(run_python):
    said = run_python(
        """
        import mmcv
        mmcv.__version__ = '1.7.0'
        try:
            import rtm_kd
        except AssertionError as error:
            print(error)
        """
    )
    assert 'MMCV==1.7.0 is used but incompatible' in said


@pytest.mark.parametrize(
    'installed, left_out',
    [
        ({}, set()),
        ({'mmcv-lite': 'mmcv', 'mmengine': 'mmengine', 'mmdet': 'mmdet'}, set()),
        ({'mmcv': 'mmcv'}, {'mmcv-lite'}),
        (
            {'onedl-mmcv': 'mmcv', 'onedl-mmengine': 'mmengine', 'onedl-mmdetection': 'mmdet'},
            {'mmcv-lite', 'mmengine', 'mmdet'},
        ),
    ],
)
def test_an_installed_fork_of_mmcv_is_kept(monkeypatch, installed, left_out):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('setuptools.setup', lambda **kwargs: None)
    spec = importlib.util.spec_from_file_location('setup_of_rtm_kd', ROOT / 'setup.py')
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    found = [
        SimpleNamespace(metadata={'Name': name}, files=[f'{module}/__init__.py', 'x.py'])
        for name, module in installed.items()
    ]
    monkeypatch.setattr(setup, 'distributions', lambda path: found)
    lines = setup.requirements()
    named = {line.split('>')[0] for line in lines}
    assert {'mmcv-lite', 'mmengine', 'mmdet'} - named == left_out and 'mmyolo' in named
