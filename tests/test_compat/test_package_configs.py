import shutil

import pytest

from rtm_kd.compat import package_configs

PROGRAM = """
{before}
import runpy
# By its path, as at the start of Python: the package itself imports MMEngine.
for _ in range(2):
    module = runpy.run_path({path!r})
    if module['applies']():
        module['enable']()
{after}
from mmengine.config import Config
from mmengine.hub import get_config
print(get_config({config!r}).width, Config.fromfile('mine.py').width)
"""


@pytest.mark.parametrize(
    'before, after',
    [('import mmengine.hub', ''), ('', 'import mmengine.runner'), ('import mmengine.hub.hub', '')],
)
def test_a_base_is_found_in_an_editable_install(run_python, tmp_path, before, after):
    """The package is in the checkout then, and its distribution in site-packages."""
    module = tmp_path / 'rtm_kd' / 'compat' / 'package_configs.py'
    module.parent.mkdir(parents=True)
    shutil.copy(package_configs.__file__, module)
    mim = tmp_path / 'rtm_kd' / '.mim'
    (mim / 'configs' / 'some').mkdir(parents=True)
    (mim / 'configs' / 'some' / 'config.py').write_text('width = 7')
    (mim / 'model-index.yml').write_text('Import: []')
    base = 'rtm_kd::some/config.py'
    (tmp_path / 'mine.py').write_text(f'_base_ = {base!r}')
    program = PROGRAM.format(path=str(module), before=before, after=after, config=base)
    assert run_python(program) == '7 7\n'
