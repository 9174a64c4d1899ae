"""Values that a config assigns, replaced before anything is computed from them.

Take a config and its base ::

    max_epochs = 300                                     # base.py
    img_scale = (640, 640)
    train_cfg = dict(max_epochs=max_epochs)

    _base_ = './base.py'                                 # config.py
    detach_epoch = _base_.max_epochs - 20

Within ``assigned(dict(max_epochs=30, img_scale=[320, 320]))`` MMEngine reads base.py as ::

    max_epochs = 30
    img_scale = tuple([320, 320]) if isinstance((640, 640), tuple) else [320, 320]

so ``train_cfg.max_epochs`` is 30 and ``detach_epoch`` is 10. A list takes the place of a tuple as a
tuple, because the command line has no tuples and transforms insist on them.
"""

import ast
import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.config.config as mmengine_config


@contextmanager
def assigned(values: dict[str, Any]) -> Iterator[None]:
    """Have MMEngine read configs with other values in their top-level ``name = ...`` statements.

    MMEngine compiles each file of a chain of bases with ``compile``, the one place that all of them
    pass, so a function of that name in MMEngine's module replaces the builtin meanwhile.
    """

    def compile_with_values(source: Any, filename: str, mode: str) -> Any:
        if isinstance(source, ast.Module):
            for node in source.body:
                target = node.targets[0] if isinstance(node, ast.Assign) else None
                if isinstance(target, ast.Name) and target.id in values:
                    node.value = _replacement(node.value, values[target.id])
            ast.fix_missing_locations(source)
        return builtins.compile(source, filename, mode)

    mmengine_config.compile = compile_with_values
    try:
        yield
    finally:
        del mmengine_config.compile


def _replacement(old: ast.expr, value: Any) -> ast.expr:
    if not isinstance(value, list):
        return ast.parse(repr(value), mode='eval').body
    text = f'tuple({value!r}) if isinstance(OLD, tuple) else {value!r}'
    choice = ast.parse(text, mode='eval').body
    choice.test.args[0] = old
    return choice
