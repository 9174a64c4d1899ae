"""Ctrl-C while MMEngine formats a config.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: ``Config.pretty_text``, in which every start and every checkpoint spends about a second,
turns everything raised meanwhile, including Ctrl-C and SystemExit, into a SyntaxError with the
whole config.
Here: whatever is not an ``Exception`` is raised unchanged.
Can go: when MMEngine catches only ``Exception`` there.
"""

import functools

from mmengine.config import Config

from .mmengine_0_10 import applies as applies


def enable() -> None:
    original = Config.pretty_text.fget

    @functools.wraps(original)
    def pretty_text(self) -> str:
        try:
            return original(self)
        except SyntaxError as error:
            if error.__context__ is None or isinstance(error.__context__, Exception):
                raise
            raise error.__context__ from None

    Config.pretty_text = property(pretty_text)
