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
    """Give a path to write to, and put what was written in the place of a file.

    A kill leaves the old file or the new one; an error or Ctrl-C leaves nothing else, either.

    Args:
        path (Path): The file. Folders above it are made.

    Yields:
        Path: Beside it.

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


def check_can_write(path: Path, what: str = 'the file') -> None:
    """Raise unless a file can be written, before the work that its content takes.

    Args:
        path (Path): The file. Folders above it are made.
        what (str): What it is, for the message.

    Raises:
        ValueError: If it can't.
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
    """Keep a second process out of a folder.

    Args:
        folder (Path): It must exist.
        refusal (str): What is said to the second process.
        inherited (bool): Whether processes that are given the file keep it locked, too. Else it
            is free as soon as this process has ended, however it did.

    Raises:
        ValueError: If there is one.
    """
    with (folder / LOCK).open('w') as file:
        try:
            import fcntl  # which Windows has not
        except ImportError:
            yield file
            return
        try:
            # A process that loads images is a fork, which has flock's lock, but not lockf's.
            lock = fcntl.flock if inherited else fcntl.lockf
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other means that this file system has no locks.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(refusal) from error
        yield file
