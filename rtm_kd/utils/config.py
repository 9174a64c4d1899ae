import ast
import builtins
import inspect
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import mmengine.config.config as mmengine_config
from mmengine.config import Config
from mmengine.runner import Runner

from .errors import UsageError, near_misses

# What MMEngine and the tools read from a config besides the Runner's own arguments.
_EXTRA_KEYS = {
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
}


def get_value(cfg: Any, name: str, default: Any = None) -> Any:
    """Return a config's value by its dotted name, else a default.

    Args:
        cfg (Config | dict): A config or a part of one.
        name (str): Such as ``'optim_wrapper.optimizer.lr'``.
        default: What to return where there is none.
    """
    for key in name.split('.'):
        if not isinstance(cfg, (dict, Config)) or key not in cfg:
            return default
        cfg = cfg[key]
    return cfg


def bare_type(cfg: Any) -> str:
    """Return the type that a part of a config names, without its scope; ``''`` if there is none."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    return str(getattr(kind, '__name__', kind or '')).split('.')[-1]


def innermost_dataset(dataset: Any) -> Any:
    """Return the dataset that wrappers such as RepeatDataset are around, built or a config's."""
    is_cfg = isinstance(dataset, dict)
    inner = dataset.get('dataset') if is_cfg else getattr(dataset, 'dataset', None)
    return dataset if inner is None else innermost_dataset(inner)


def load_config(filename: str, options: Optional[dict[str, Any]] = None) -> Config:
    """Read a config file with ``--cfg-options`` that reach what is computed from them.

    MMEngine merges options into the finished config, so ``max_epochs=30`` changes the
    variable and leaves the schedule, the pipeline switch and the detach at 300. Here an
    option without a dot replaces the value where the config or one of its bases assigns
    it, before anything is computed from it. Every other option is merged as MMEngine does.

    Args:
        filename (str): Path of the config.
        options (dict, optional): Dotted name -> value.

    Raises:
        ValueError: If the file is missing or can't be executed, or an option without a dot
            is neither in the config nor known to MMEngine.
    """
    options = dict(options or {})
    if not os.path.isfile(filename):
        raise UsageError(f'there is no config file {filename}')
    try:
        with _assigned({k: v for k, v in options.items() if '.' not in k}):
            cfg = Config.fromfile(filename)
    except UsageError:
        raise
    except Exception as error:  # whatever the statements of a config raise
        given = ', '.join(f'{name}={value!r}' for name, value in options.items())
        raise UsageError(
            f"the config {filename} can't be read{_where(error)}: {type(error).__name__}: {error}"
            + (f' (with {given})' if given else '')
        ) from error
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *_EXTRA_KEYS}
    for name in options:
        top = name.split('.')[0]
        if top not in known:
            raise UsageError(
                f'--cfg-options: the config {filename} has no "{top}"' + near_misses(top, known)
            )
    for name, value in options.items():
        if '.' in name or name not in cfg:
            try:
                cfg.merge_from_dict({name: value})
            except (KeyError, TypeError) as error:
                raise UsageError(
                    f'--cfg-options: {name} does not fit the config {filename}: {error.args[0]}'
                ) from error
    return cfg


def read_dumped_config(filename: str) -> Config:
    """Read a config as MMEngine dumps it. Nothing of it is run or imported, and nothing replaced.

    Args:
        filename (str): Path of the config.

    Raises:
        ValueError: If it is anything but ``name = value`` with values that are written out.
    """
    values = {}
    try:
        with open(filename, encoding='utf-8') as file:
            statements = ast.parse(file.read()).body
        for statement in statements:
            (target,) = statement.targets
            values[target.id] = ast.literal_eval(_DictDisplays().visit(statement.value))
        return Config(values, filename=filename)
    except Exception as error:  # what a file holds that is cut off, or no config at all
        raise UsageError(f'{filename} is not a config that MMEngine dumped ({error})') from error


class _DictDisplays(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a': 1})`` into ``{'a': 1}``."""

    def visit_Call(self, call: ast.Call) -> ast.expr:
        self.generic_visit(call)
        if getattr(call.func, 'id', None) != 'dict':
            raise ValueError(f'line {call.lineno} calls a function')
        if call.args:
            (mapping,) = call.args
            return mapping
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(f'line {call.lineno} unpacks a dict')
        keys = [ast.Constant(keyword.arg) for keyword in call.keywords]
        return ast.Dict(keys, [keyword.value for keyword in call.keywords])


def _where(error: Exception) -> str:
    """Return ``', line 7 of a.py'``, the place in a config file that raised it, if one did."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>'
    ]
    return f', line {frames[-1].lineno} of {frames[-1].filename}' if frames else ''


class _Assign(ast.NodeTransformer):
    """Replaces the values of top-level ``name = ...`` statements."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def visit_Module(self, module: ast.Module) -> ast.Module:
        for node in module.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id in self.values:
                node.value = self._replaced(node.value, self.values[target.id])
        return ast.fix_missing_locations(module)

    @staticmethod
    def _replaced(old: ast.expr, value: Any) -> ast.expr:
        if not isinstance(value, list):
            return ast.parse(repr(value), mode='eval').body
        # The command line has no tuples, and transforms insist on them.
        new = f'(lambda old: tuple({value!r}) if isinstance(old, tuple) else {value!r})(old)'
        call = ast.parse(new, mode='eval').body
        call.args = [old]
        return call


@contextmanager
def _assigned(values: dict[str, Any]) -> Iterator[None]:
    """Let MMEngine's config reader see other values while the context is open.

    It compiles every file of the chain; this is the one place where all of them pass.
    """

    def compile_with_values(source, filename, mode):
        if isinstance(source, ast.Module):
            source = _Assign(values).visit(source)
        return builtins.compile(source, filename, mode)

    mmengine_config.compile = compile_with_values
    try:
        yield
    finally:
        del mmengine_config.compile
