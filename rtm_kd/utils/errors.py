"""One sentence for what a user can mend; a traceback for everything else."""

import difflib
import errno
import io
import os
import re
import reprlib
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Optional

import mmengine.registry
import mmengine.runner.runner
from mmengine.registry import build_from_cfg

# What a disk answers that is full or forbidden or has something in the way; the user can mend it,
# and there is no bug to trace.
_DISK_ERRORS = (
    *(errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG),
)

_LONGEST_LINE = 2000  # characters
_LEFT_OUT = ' [...] '

# How long the other processes of a distributed run leave it to the first to say an error.
_SECONDS_FOR_THE_FIRST = 10


def printable(text: object) -> str:
    """Return a text as a line that a terminal shows and does not obey, of 2000 characters at most.

    Names and paths of others are part of most messages: whatever is not printable in them,
    such as an escape or the end of a line, is escaped, and of a long text the middle is left out.
    """
    # Shortened first, or megabytes would be escaped, and again as an escape is longer.
    shortened = _shortened(str(text))
    return _shortened(
        ''.join(
            character if character.isprintable() else ascii(character)[1:-1]
            for character in shortened
        )
    )


def _shortened(text: str) -> str:
    half = (_LONGEST_LINE - len(_LEFT_OUT)) // 2
    return text if len(text) <= _LONGEST_LINE else text[:half] + _LEFT_OUT + text[-half:]


class UsageError(ValueError):
    """Something that the user can put right: the message says what and how, in one line.

    The tools print it alone; any other exception keeps its traceback.

    Args:
        message (str): It is made :func:`printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RunError(UsageError):
    """A fault that ends a run under way: the log has it too, and the work dir stays.

    Torch hands on what a loader's process raises with the traceback as its message, which is
    cut down to the sentence again here.

    Args:
        message (str): What says what went wrong, and how to put it right.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean "a" or "b"?'``, or nothing if no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return '; did you mean ' + ' or '.join(f'"{match}"' for match in close) + '?' if close else ''


@contextmanager
def report_usage_errors(after_ctrl_c: str = '') -> Iterator[None]:
    """Print a :class:`UsageError` or a full disk as one line and exit with status 2.

    In a distributed run the first process speaks, and another one only if the first does not
    exit; all of them exit. Ctrl-C is a line as well, and status 130. ``python -X dev`` shows the
    traceback as well.

    Args:
        after_ctrl_c (str): What to do to go on, to be said after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # and no notebook's
        # As stderr does it: a name that the terminal can't show ends no run.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        yield
    except KeyboardInterrupt:
        if sys.flags.dev_mode:
            raise
        if process_rank() == '0':
            # The line on which a terminal shows ^C, or a progress bar, ends here.
            print('\nstopped' + ('; ' + after_ctrl_c if after_ctrl_c else ''), file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except UsageError as error:
        _exit_with(str(error), error)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = 'a file that was being written' if error.filename is None else error.filename
        _exit_with(printable(f'{where}: {error.strerror}'), error)


@contextmanager
def explain_build_errors() -> Iterator[None]:
    """Say which part of a config it was, when one that MMEngine's registries build fails.

    Raises:
        ValueError: In place of any error from inside a registry's ``build``; other errors
            pass.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # a class that gets a wrong value raises whatever it likes
        built = _part_being_built(error)
        if built is None or getattr(error, 'errno', None) in _DISK_ERRORS:
            raise
        raise UsageError(
            _unregistered(error)
            or f"the config's {built} can't be built: {type(error).__name__}: {_line(error)} "
            '(python -X dev shows where)'
        ) from error


def _part_being_built(error: Exception) -> Optional[str]:
    part = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code is build_from_cfg.__code__:
            cfg = trace.tb_frame.f_locals['cfg']
            name = cfg.get('type') if isinstance(cfg, dict) else cfg
            name = name if isinstance(name, str) else reprlib.repr(name)
            part = f'"{_line(name)}"'
        elif code.co_filename == mmengine.runner.runner.__file__ and (
            # What the runner finds wrong before it asks a registry.
            code.co_name.startswith(('__init__', 'build_', 'register_'))
        ):
            part = code.co_name.replace('__init__', 'runner').split('_', 1)[-1]
        trace = trace.tb_next
    return part


def process_rank() -> str:
    """Return this process's number among those of a run, as its launcher gave it."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))


def _line(text: object) -> str:
    return ' '.join(str(text).split())


def _exit_with(message: str, error: Exception) -> None:
    if sys.flags.dev_mode:
        raise error
    rank = process_rank()
    if rank != '0':
        # The first process says the same, unless only this one has met the error. Whoever ends
        # first, its launcher ends the others.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_SECONDS_FOR_THE_FIRST)
        message = f'process {rank}: {message}'
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def _unregistered(error: Exception) -> Optional[str]:
    """Put MMEngine's KeyError for a type that no registry knows into one sentence."""
    match = re.match(
        r'(\S+) is not in the (\S+)::(.+?) registry', str(error.args[0]) if error.args else ''
    )
    if match is None:
        return None
    name, scope, registry_name = match.groups()
    known = set()
    for root in vars(mmengine.registry).values():
        if isinstance(root, mmengine.registry.Registry) and root.name == registry_name:
            known |= _names(root)
    return (
        f'the config names the type "{name}", and there is no {registry_name} of this name '
        f'(looked up from scope {scope})' + near_misses(name, known)
    )


def _names(registry) -> set:
    prefix = '' if registry.parent is None else f'{registry.scope}.'
    names = {*registry.module_dict} | {prefix + name for name in registry.module_dict}
    for child in registry.children.values():
        names |= _names(child)
    return names
