import pytest

from rtm_kd.compat import package_configs

PROGRAM = """
{before}
import runpy
# By its path, as at the start of Python: the package itself imports MMEngine.
enable = runpy.run_path({path!r})['enable']
enable(), enable()
{after}
from mmengine.config.utils import MODULE2PACKAGE
print(MODULE2PACKAGE['rtm_kd'], MODULE2PACKAGE['mmdet'])
"""


@pytest.mark.parametrize(
    'before, after', [('import mmengine', ''), ('', 'import mmengine.runner'), ('', '')]
)
def test_is_on_the_list_whichever_is_imported_first(run_python, before, after):
    program = PROGRAM.format(path=package_configs.__file__, before=before, after=after)
    assert run_python(program) == 'rtm_kd mmdet\n'
