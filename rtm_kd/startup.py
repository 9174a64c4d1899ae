"""What must be in place before the imports of a tool, which take seconds: Ctrl-C, a home folder."""

import atexit
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

#: Process id of the launcher that this process ends with.
LAUNCHER = 'RTM_KD_LAUNCHER'
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PACKAGE = Path(__file__).resolve().parent


def name_stop_while_importing() -> None:
    """Let Ctrl-C during the imports of a tool end it with one line and status 130.

    After the imports :func:`rtm_kd.utils.report_usage_errors` does the same. Programs that are not
    tools keep their traceback, as do the tools with ``python -X dev``.
    """
    program = getattr(sys.modules['__main__'], '__file__', None)
    folders = (_PACKAGE.parent / 'tools', _PACKAGE / '.mim' / 'tools')
    if program is None or not any(f in Path(program).resolve().parents for f in folders):
        return
    shown = sys.excepthook

    def say(kind, error, trace) -> None:
        if issubclass(kind, KeyboardInterrupt) and not sys.flags.dev_mode:
            stop()
        shown(kind, error, trace)

    sys.excepthook = say


def process_rank() -> str:
    """Return the rank of this process, as its launcher set it."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))


def stop(after_ctrl_c: str = '') -> NoReturn:
    """Exit with status 130 and one line, printed by the first process: "stopped", and what next."""
    if process_rank() == '0':
        # Starts on a new line, after the ^C of the terminal or a progress bar.
        print('\nstopped' + ('; ' + after_ctrl_c if after_ctrl_c else ''), file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


def have_a_home() -> None:
    """Give a process without a home folder, as in a container with an arbitrary uid, an empty one.

    Without ``HOME`` and an entry in the list of users, packages that keep a cache raise when they
    are imported. The folder is deleted when the process ends.
    """
    if os.environ.get('HOME') == '':
        del os.environ['HOME']  # not every package treats this as unset
    if os.path.expanduser('~') == '~':
        home = os.environ['HOME'] = tempfile.mkdtemp(prefix='rtm_kd_home_')
        atexit.register(shutil.rmtree, home, ignore_errors=True)


def end_with_launcher() -> None:
    """End this process when the ``tools/dist_launch.py`` that started it ends, even by SIGKILL.

    Otherwise it would keep running and hold its GPU. Only on Linux: other systems don't tell a
    process that its parent has ended.
    """
    # Removed, since processes that this one starts have another parent.
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None or sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        # It ended before prctl.
        os.kill(os.getpid(), signal.SIGKILL)
