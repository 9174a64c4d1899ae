"""Errors that a user can fix, and how the tools print them: one line instead of a traceback."""

import difflib
import errno
import io
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rtm_kd.startup import process_rank, stop

#: ``errno`` of a disk that is full, not writable, or has something in the way.
DISK_ERRORS = (
    *(errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG),
)

_LONGEST_LINE = 2000  # characters
_LEFT_OUT = ' [...] '
# Seconds that other ranks wait for rank 0 to report an error first.
_SECONDS_FOR_THE_FIRST = 10


def printable(text: object) -> str:
    """Return a text, which may have names from files, as one line that is safe on a terminal.

    Characters that are not printable, such as line ends, are escaped, and the middle of a text of
    more than 2000 characters is left out.
    """
    # Shortened before as well, or megabytes would be escaped.
    return _shortened(
        ''.join(
            character if character.isprintable() else ascii(character)[1:-1]
            for character in _shortened(str(text))
        )
    )


def _shortened(text: str) -> str:
    half = (_LONGEST_LINE - len(_LEFT_OUT)) // 2
    return text if len(text) <= _LONGEST_LINE else text[:half] + _LEFT_OUT + text[-half:]


class UsageError(ValueError):
    """Something that the user can fix: the message says what and how, in one line.

    The tools print the message alone; any other exception keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RunError(UsageError):
    """A fault that ends a run that has started: it is logged too, and the work dir stays."""

    def __init__(self, message: str) -> None:
        # Torch raises an error of a data loader's process again with its traceback as the message.
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean "a" or "b"?'``, or an empty string if no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return '; did you mean ' + ' or '.join(f'"{match}"' for match in close) + '?' if close else ''


def first_few(texts: Sequence[str], most: int = 3, separator: str = ', ') -> str:
    """Return the first of some texts, such as ``'a, b, c and 4 more'``."""
    more = f' and {len(texts) - most} more' if len(texts) > most else ''
    return separator.join(texts[:most]) + more


def say(line: str) -> None:
    """Print a line for the user: :func:`printable`, and at once."""
    print(printable(line), flush=True)


@contextmanager
def report_usage_errors(after_ctrl_c: str = '') -> Iterator[None]:
    """Print a :class:`UsageError` or a disk error as one line and exit with status 2.

    Ctrl-C is one line too, with status 130. All processes of a distributed run exit; the first one
    prints, and another one only if the first does not exit. ``python -X dev`` keeps tracebacks.

    Args:
        after_ctrl_c (str): How to resume, printed after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # unlike a notebook's
        # As stderr does: a name that the terminal can't show ends no run.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        yield
    except KeyboardInterrupt:
        if sys.flags.dev_mode:
            raise
        stop(after_ctrl_c)
    except UsageError as error:
        _exit_with(str(error), error)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = 'a file that was being written' if error.filename is None else error.filename
        _exit_with(printable(f'{where}: {error.strerror}'), error)


def _exit_with(message: str, error: Exception) -> None:
    if sys.flags.dev_mode:
        raise error
    rank = process_rank()
    if rank != '0':
        # Rank 0 prints the same, unless only this rank has met the error. When any rank exits, the
        # launcher ends the others.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_SECONDS_FOR_THE_FIRST)
        message = f'process {rank}: {message}'
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)
