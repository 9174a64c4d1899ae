"""What has to be in place before the imports of a tool, which take seconds."""

import atexit
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

#: Process id of the launcher whose end is this process's, too.
LAUNCHER = 'RTM_KD_LAUNCHER'
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PACKAGE = Path(__file__).resolve().parent


def name_stop_while_importing() -> None:
    """Have a tool that Ctrl-C ends while it imports end with one line and status 130.

    What comes after the imports :func:`rtm_kd.utils.report_usage_errors` looks after. A program
    that is not one of the tools keeps its traceback, as do the tools with ``python -X dev``.
    """
    program = getattr(sys.modules['__main__'], '__file__', None)
    folders = (_PACKAGE.parent / 'tools', _PACKAGE / '.mim' / 'tools')
    if program is None or not any(f in Path(program).resolve().parents for f in folders):
        return
    shown = sys.excepthook

    def say(kind, error, trace) -> None:
        if not issubclass(kind, KeyboardInterrupt) or sys.flags.dev_mode:
            shown(kind, error, trace)
            return
        if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
            print('\nstopped', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)

    sys.excepthook = say


def have_a_home() -> None:
    """Give a process a home folder that has none, as in a container that runs under any number.

    Without ``HOME`` and an entry in the system's list of users, packages that keep a cache end in
    a traceback when they are imported. It is empty, and gone when the process ends.
    """
    if os.environ.get('HOME') == '':
        del os.environ['HOME']  # not every package takes this for none
    if os.path.expanduser('~') == '~':
        home = os.environ['HOME'] = tempfile.mkdtemp(prefix='rtm_kd_home_')
        atexit.register(shutil.rmtree, home, ignore_errors=True)


def end_with_launcher() -> None:
    """End when ``tools/dist_launch.py`` does, however it ends, if it has started this process.

    Else a process would live on, and hold its GPU, after a SIGKILL of its launcher. On Linux alone:
    other systems don't tell a process of its parent's end.
    """
    # Taken out, since processes that this one starts have another parent.
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None or sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        # It has ended before this was asked for.
        os.kill(os.getpid(), signal.SIGKILL)
