"""Ctrl-C before a tool has begun: its imports take seconds."""

import os
import signal
import sys
from pathlib import Path

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
