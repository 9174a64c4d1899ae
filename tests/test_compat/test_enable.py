import inspect
import runpy
import sys

import pytest
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from pycocotools.coco import COCO

from rtm_kd import compat
from rtm_kd.compat import mmcv_ext, mmcv_version, package_configs


def test_enabling_again_changes_nothing():
    patched = [Config, LocalBackend, CheckpointHook, MMDistributedDataParallel, Runner, COCO]
    before = [dict(vars(each)) for each in patched], list(sys.meta_path)
    compat.enable()
    assert ([dict(vars(each)) for each in patched], list(sys.meta_path)) == before


@pytest.mark.parametrize('module', [mmcv_ext, mmcv_version, package_configs])
def test_finders_that_the_opt_in_enabled_are_not_added_again(module):
    """The opt-in runs these files by their paths, under another module name."""
    assert not runpy.run_path(module.__file__)['applies']()


@pytest.mark.parametrize('fix', compat._FIXES, ids=lambda fix: fix.__name__.split('.')[-1])
def test_each_patch_documents_its_fault_and_when_it_can_go(fix):
    for part in ('For: ', 'Fault: ', 'Here: ', 'Can go: '):
        assert f'\n{part}' in inspect.getdoc(fix)


@pytest.mark.parametrize('fix', compat._FIXES, ids=lambda fix: fix.__name__.split('.')[-1])
def test_each_fix_tells_whether_it_applies_to_the_fork_too(fix, monkeypatch):
    # onedl-mmengine has no version_info.
    monkeypatch.delattr('mmengine.version_info', raising=False)
    assert isinstance(fix.applies(), bool)
