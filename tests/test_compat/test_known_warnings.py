"""Deprecation warnings of MMEngine and MMDetection."""

import sys
import warnings

import pytest
import torch
from mmdet.models.layers import ChannelAttention
from mmdet.models.task_modules import MlvlPointGenerator
from mmengine.utils import digit_version, is_installed

from rtm_kd.compat import known_warnings

WARNS = """
import warnings
warnings.warn('pkg_resources is deprecated as an API. See ...', UserWarning, stacklevel=2)
class DistributionNotFound(Exception): pass
def get_distribution(name): raise DistributionNotFound
"""


@pytest.mark.parametrize('own_filter, shown', [(None, 0), ('always', 2)])
def test_mmengines_two_warnings_are_shown_only_on_request(tmp_path, monkeypatch, own_filter, shown):
    (tmp_path / 'pkg_resources.py').write_text(WARNS)
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, 'pkg_resources', raising=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        if own_filter:
            warnings.simplefilter(own_filter)
        known_warnings.enable()
        assert is_installed('mmdet')
        assert len(said) == shown
        # A program's own import still warns.
        del sys.modules['pkg_resources']
        import pkg_resources  # noqa: F401

        assert len(said) == shown + 1
    monkeypatch.delitem(sys.modules, 'pkg_resources')


@pytest.fixture
def _every_warning():
    """Of C++, torch shows each warning once in a process."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.4'), reason='autocast does not warn'
)
@pytest.mark.usefixtures('_every_warning')
@pytest.mark.parametrize(
    'own_filter, shown', [(None, set()), ('always', {FutureWarning, UserWarning})]
)
def test_mmdetections_old_calls_of_torch_warn_only_on_request(own_filter, shown):
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        if own_filter:
            warnings.simplefilter(own_filter)
        known_warnings.enable()
        ChannelAttention(4)(torch.zeros(1, 4, 2, 2))
        MlvlPointGenerator([8]).grid_priors([(2, 2)], device='cpu')
        # A program's own call still warns.
        before = {warning.category for warning in said}
        del said[:]
        with torch.cuda.amp.autocast(enabled=False):
            pass
    assert before == shown
    assert [warning.category for warning in said] == [FutureWarning]
