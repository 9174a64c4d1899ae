"""Let programs that do not import rtm_kd first run with an mmcv without operators.

``enable`` writes one line into the site-packages of this environment. From then on every
Python process of the environment can import ``mmcv._ext``, compiled or not, and read a config
whose base is ``rtm_kd::...``, so that MMYOLO's own ``tools/train.py`` starts. All other fixes of
rtm_kd come with a config's ``custom_imports = dict(imports=['rtm_kd'])``. ``disable`` removes
the line.

Example: python -m rtm_kd.compat enable
"""

import argparse
import os
import signal
import sys
import sysconfig
from pathlib import Path

from . import mmcv_ext, mmcv_version, package_configs

_MODULES = (mmcv_ext, mmcv_version, package_configs)
# By path, since the package itself would load torch into every process; and silent if a file is
# gone, since an uninstalled rtm_kd must not break Python.
_AT_START = """
import os
for path in {paths}:
    if os.path.isfile(path):
        import importlib.util
        spec = importlib.util.spec_from_file_location('_rtm_kd_at_start', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if module.applies():
            module.enable()
"""


def pth_file() -> Path:
    return Path(sysconfig.get_paths()['purelib']) / 'rtm_kd_compat.pth'


def pth_line() -> str:
    """Return the line for :func:`pth_file`; Python executes lines that begin with import."""
    paths = [str(Path(module.__file__).resolve()) for module in _MODULES]
    # In ASCII: Python reads the file in an encoding that depends on version and locale.
    return f'import sys; exec({_AT_START.format(paths=ascii(paths))!a}, {{}})\n'


def enable() -> str:
    """Write the line, and return :func:`status`. Raises OSError if that is not possible."""
    # Every Python process reads all .pth files at its start, and must not find half a line.
    part = pth_file().with_suffix('.part')
    try:
        part.write_text(pth_line(), encoding='ascii')
        os.replace(part, pth_file())
    finally:
        part.unlink(missing_ok=True)
    return status()


def disable() -> str:
    """Remove the line, and return :func:`status`. Raises OSError if that is not possible."""
    pth_file().unlink(missing_ok=True)
    return status()


def status() -> str:
    """Return a sentence that says whether the line is there."""
    if not pth_file().exists():
        return 'disabled'
    if pth_file().read_text(encoding='utf-8') != pth_line():
        return f'{pth_file()} belongs to another copy of rtm_kd; enable overwrites it'
    return f'enabled: every Python process of this environment reads {pth_file()}'


def main() -> None:
    actions = {function.__name__: function for function in (enable, disable, status)}
    parser = argparse.ArgumentParser(
        prog='python -m rtm_kd.compat',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('action', choices=actions)
    action = parser.parse_args().action
    try:
        print(actions[action]())
    except KeyboardInterrupt:
        print('\nstopped', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        sys.stderr.write(
            f'error: cannot change {pth_file()} ({error.strerror}); use an environment of your '
            'own, for example one that "python -m venv" makes\n'
        )
        sys.exit(2)


if __name__ == '__main__':
    main()
