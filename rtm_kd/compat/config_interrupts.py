"""Ctrl-C while MMEngine formats a config.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: ``Config.pretty_text``, in which every start and every checkpoint spends about a second,
catches everything that is raised meanwhile, Ctrl-C and the exit of a program included, and raises
a SyntaxError with the whole config instead.
Here: what is not an error stays what it is.
Can go: when MMEngine catches no more than ``Exception`` there.
"""

import functools

import mmengine
from mmengine.config import Config
from mmengine.utils import digit_version


def _let_through(getter):
    @functools.wraps(getter)
    def pretty_text(self) -> str:
        try:
            return getter(self)
        except SyntaxError as error:
            if error.__context__ is None or isinstance(error.__context__, Exception):
                raise
            raise error.__context__ from None

    return pretty_text


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')


def enable() -> None:
    Config.pretty_text = property(_let_through(Config.pretty_text.fget))
