"""A check by audit events that code writes no other files and starts nothing."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = (
    *('os.system', 'os.exec', 'os.fork', 'os.forkpty', 'os.posix_spawn', 'subprocess.Popen'),
    *('os.kill', 'os.putenv', 'pty.spawn', 'socket.connect', 'socket.bind', 'urllib.Request'),
    *('os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.link', 'os.symlink', 'os.truncate'),
    *('os.chmod', 'os.chown', 'shutil.rmtree', 'shutil.move', 'shutil.copyfile', 'ctypes.dlopen'),
)
_watched = None  # (folders that may be written, events seen), None while not watching


def _hook(event: str, arguments: tuple) -> None:
    if _watched is None:
        return
    folders, seen = _watched
    if event == 'open':
        path, _, flags = arguments
        if isinstance(path, int) or not flags & _WRITES:
            return
    elif event in _EVENTS:
        path = arguments[0]
    else:
        return
    path = os.path.realpath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else ''
    if not path.startswith(folders):
        seen.append((event, *map(repr, arguments)))


# An audit hook cannot be removed, so the whole process has one.
sys.addaudithook(_hook)


@contextmanager
def nothing_happens_outside(*folders: str) -> Iterator[None]:
    """Fail if a file outside ``folders`` is written, or a process or connection started."""
    global _watched
    allowed = tuple(os.path.realpath(folder) + os.sep for folder in folders)
    seen = []
    _watched = allowed, seen
    try:
        yield
    finally:
        _watched = None
    assert not seen, seen
