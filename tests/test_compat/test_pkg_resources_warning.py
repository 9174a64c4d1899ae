"""MMEngine's two warnings about pkg_resources."""

import sys
import warnings

import pytest
from mmengine.utils import is_installed

from rtm_kd.compat import pkg_resources_warning

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
        pkg_resources_warning.enable()
        assert is_installed('mmdet')
        assert len(said) == shown
        # A program's own import still warns.
        del sys.modules['pkg_resources']
        import pkg_resources  # noqa: F401

        assert len(said) == shown + 1
    monkeypatch.delitem(sys.modules, 'pkg_resources')
