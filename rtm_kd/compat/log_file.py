"""A log file on a full disk.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: a log line that can't be written to the file is a traceback of thirty lines on the
terminal, and so is each line after it.
Here: the first failure is one line, the others are silent. The run continues with its log on the
terminal, and the file gets later lines once there is space again.
Can go: when MMEngine's logger handles errors of its file.
"""

import functools
import logging
import sys

from mmengine.logging import MMLogger

from .mmengine_0_10 import applies as applies


def _handle_error(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.FileHandler.handleError(handler, record)
    elif not getattr(handler, 'said', False):
        handler.said = True
        print(
            f"warning: the log file {handler.baseFilename} can't be written ({error.strerror}), "
            'and the run continues without it',
            file=sys.stderr,
        )


def enable() -> None:
    original = MMLogger.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        for handler in self.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = functools.partial(_handle_error, handler)

    MMLogger.__init__ = __init__
