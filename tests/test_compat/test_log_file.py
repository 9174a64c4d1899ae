import errno
import logging
import os
import sys
import uuid

import pytest
from mmengine.logging import MMLogger


class Disk:
    """A file on a disk that is full until there is space."""

    def __init__(self):
        self.text = ''
        self.space = False

    def write(self, text):
        if not self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.text += text

    def flush(self):
        pass

    close = flush


def full_log(tmp_path):
    logger = MMLogger(uuid.uuid4().hex, log_file=str(tmp_path / 'a.log'))
    (logger.file,) = (each for each in logger.handlers if isinstance(each, logging.FileHandler))
    logger.file.setStream(Disk()).close()
    return logger


def test_a_full_disk_is_reported_once_and_logging_resumes_when_there_is_space(tmp_path, capsys):
    log = full_log(tmp_path)
    for word in ('one', 'two', 'three'):
        log.info(word)
    said = capsys.readouterr()
    assert said.err == (
        f"warning: the log file {tmp_path / 'a.log'} can't be written (No space left on device), "
        'and the run continues without it\n'
    )
    assert 'three' in said.out
    log.file.stream.space = True
    log.info('four')
    assert 'four' in log.file.stream.text


def test_other_errors_while_logging_keep_their_traceback(tmp_path, capsys):
    log = full_log(tmp_path)
    log.info('%d', 'no number')
    assert 'TypeError' in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/full exists only on Linux')
def test_logging_to_a_full_device_is_reported_once(capsys):
    logger = MMLogger(uuid.uuid4().hex, log_file='/dev/full')
    for _ in range(1000):
        logger.info('a line')
    assert len(capsys.readouterr().err.splitlines()) == 1
