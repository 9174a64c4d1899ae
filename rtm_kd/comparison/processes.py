"""Processes that end with this one, after they have saved what they have."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

_SECONDS_BETWEEN_LOOKS = 0.5


def run_module(
    module: str, arguments: Sequence[str], log: Path, lock: TextIO, watch: Callable[[], None]
) -> int:
    """Run a module in a process of its own until it ends.

    Args:
        module (str): For ``python -m``. It is to end when its standard input does.
        arguments (Sequence[str]): Of its command line.
        log (Path): What it prints is added to this file.
        lock (TextIO): What :func:`rtm_kd.utils.files.locked` gives; it stays locked as long
            as the process runs.
        watch (Callable): Called twice a second. What it raises, and Ctrl-C and SIGTERM, ends
            the process with SIGTERM, waits for it and goes on to the caller.

    Returns:
        int: Its exit status, negative for a signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('ab') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', module, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal is for this process alone, which then asks it to save.
            start_new_session=True,
            pass_fds=() if sys.platform == 'win32' else (lock.fileno(),),
        )
    try:
        while True:
            try:
                return process.wait(timeout=_SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                watch()
    except BaseException:
        process.terminate()
        try:
            process.wait()
        except BaseException:
            # Asked a second time.
            process.kill()
            raise
        raise
    finally:
        process.stdin.close()


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
