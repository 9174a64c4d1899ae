"""Ctrl-C while MMEngine formats a config.

For: mmengine <= 0.10.7.
Fault: ``Config.pretty_text``, in which every start and every checkpoint spends about a second,
catches everything that is raised meanwhile, Ctrl-C and the exit of a program included, and raises
a SyntaxError with the whole config instead.
Here: what is not an error stays what it is.
Can go: when MMEngine catches no more than ``Exception`` there.
"""

import functools

from mmengine.config import Config


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


def enable() -> None:
    getter = Config.pretty_text.fget
    if not hasattr(getter, '__wrapped__'):
        Config.pretty_text = property(_let_through(getter))
