"""Child processes that are terminated with their parent and may save first."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def run_module(
    module: str, arguments: Sequence[str], log: Path, lock: TextIO, watch: Callable[[], None]
) -> int:
    """Run a module in its own process until it ends, and return its exit status.

    Args:
        module (str): For ``python -m``. It has to end when its standard input does.
        arguments (Sequence[str]): Of its command line.
        log (Path): Its output is appended to this file.
        lock (TextIO): From :func:`rtm_kd.utils.files.locked`; stays locked while the process runs.
        watch (Callable): Called twice a second. What it raises, and Ctrl-C and SIGTERM, ends the
            process with SIGTERM and is raised again when that has ended.
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
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                watch()
    except BaseException:
        process.terminate()
        try:
            process.wait()
        except BaseException:  # asked a second time
            process.kill()
            raise
        raise
    finally:
        process.stdin.close()


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
