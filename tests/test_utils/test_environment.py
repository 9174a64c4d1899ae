from types import SimpleNamespace

from rtm_kd.utils import environment


def test_a_fork_is_reported_under_its_own_name(monkeypatch):
    installed = {
        'torch': '2.8.0',
        'onedl-mmengine': '0.10.12',
        'onedl-mmcv-cu128-torch2-8': '2.3.1',
    }
    found = [
        SimpleNamespace(metadata={'Name': name}, version=version)
        for name, version in {**installed, 'attrs': '1.0'}.items()
    ]
    monkeypatch.setattr('importlib.metadata.distributions', lambda: found)
    versions = environment.versions()
    assert {name: versions[name] for name in installed} == installed
    assert versions.keys() - installed.keys() == {'rtm_kd', 'python'}
