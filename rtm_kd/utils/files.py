"""Writing files atomically, and locking folders."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import UsageError

LOCK = 'lock'


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path beside it, then rename that over the file.

    A kill leaves the old file or the new one; an error or Ctrl-C removes the temporary file too.
    Missing parent folders are created.

    Raises:
        OSError: With the path of the file, if it can't be written.
    """
    part = path.with_name(path.name + '.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, part, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: Path, text: str, errors: str = 'strict') -> None:
    """Write a file in UTF-8, atomically; see ``str.encode`` for ``errors``."""
    with atomic_write(path) as part:
        part.write_text(text, encoding='utf-8', errors=errors)


def check_can_write(path: Path, what: str) -> None:
    """Raise unless a file can be written, before the work that goes into it; create its parents.

    Raises:
        ValueError: If it can't; ``what`` is the name of the file or option in the message.
    """
    if path.is_dir():
        raise UsageError(f'{path} is a folder; give the name of a file, {path / "out"} say')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"{what} {path} can't be written: {error.strerror}") from error


@contextmanager
def locked(folder: Path, refusal: str, inherited: bool = False) -> Iterator[TextIO]:
    """Keep other processes out of an existing folder, and yield the lock file.

    Args:
        inherited (bool): Whether child processes that are given the file hold the lock too.
            Otherwise it is released when this process ends, even by a kill.

    Raises:
        ValueError: If another process holds the lock, with ``refusal`` as the message.
    """
    with (folder / LOCK).open('w') as file:
        try:
            import fcntl  # not on Windows
        except ImportError:
            yield file
            return
        try:
            # Forked data loaders would inherit flock's lock, but not lockf's.
            lock = fcntl.flock if inherited else fcntl.lockf
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error means that this file system has no locks.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(refusal) from error
        yield file
