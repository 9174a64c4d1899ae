"""Values that a config assigns, replaced before anything is computed from them.

Take a config and its base ::

    max_epochs = 300                                     # base.py
    img_scale = (640, 640)
    train_cfg = dict(max_epochs=max_epochs)

    _base_ = './base.py'                                 # config.py
    detach_epoch = _base_.max_epochs - 20

Within ``assigned(dict(max_epochs=30, img_scale=[320, 320]))`` MMEngine reads base.py as ::

    max_epochs = 300
    max_epochs = 30
    img_scale = (640, 640)
    img_scale = tuple([320, 320]) if isinstance(img_scale, tuple) else [320, 320]

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
def assigned(values: dict[str, Any]) -> Iterator[set[str]]:
    """Have MMEngine read configs with other values of the names that they assign.

    MMEngine compiles each file of a chain of bases with ``compile``, the one place that all of them
    pass, so a function of that name in MMEngine's module replaces the builtin meanwhile.

    Yields:
        set[str]: Gets the names that had another value; a config in JSON or YAML has none.
    """
    reassign = _Reassign(values)

    def compile_with_values(source: Any, filename: str, mode: str) -> Any:
        if isinstance(source, ast.Module):
            source = ast.fix_missing_locations(reassign.visit(source))
        return builtins.compile(source, filename, mode)

    mmengine_config.compile = compile_with_values
    try:
        yield reassign.found
    finally:
        del mmengine_config.compile


class _Reassign(ast.NodeTransformer):
    """Add ``name = other value`` after every statement outside functions that assigns the name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.found: set[str] = set()

    def visit_Assign(self, node: Any) -> list[ast.stmt]:
        if node.value is None:  # an annotation alone
            return [node]
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in targets for part in ast.walk(target)]
        stored = [n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        names = [name for name in stored if name in self.values]
        self.found.update(names)
        return [node, *(_assignment(name, self.values[name]) for name in names)]

    visit_AnnAssign = visit_AugAssign = visit_Assign

    def visit_FunctionDef(self, node: ast.stmt) -> ast.stmt:
        return node

    visit_ClassDef = visit_FunctionDef


def _assignment(name: str, value: Any) -> ast.stmt:
    text = repr(value)
    if isinstance(value, list):
        text = f'tuple({text}) if isinstance({name}, tuple) else {text}'
    return ast.parse(f'{name} = {text}').body[0]
