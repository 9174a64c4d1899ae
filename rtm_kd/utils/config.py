"""Reading configs, and looking values up in them."""

import ast
import inspect
import os
import traceback
from typing import Any, Optional

from mmengine.config import Config
from mmengine.runner import Runner

from .config_assignment import assigned
from .errors import UsageError, near_misses

# What MMEngine reads from a config, in addition to the Runner's arguments.
_EXTRA_KEYS = {
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn'),
}


def get_value(cfg: Any, name: str, default: Any = None) -> Any:
    """Return a config's value by its dotted name, such as ``'optim_wrapper.optimizer.lr'``."""
    for key in name.split('.'):
        if not isinstance(cfg, (dict, Config)) or key not in cfg:
            return default
        cfg = cfg[key]
    return cfg


def bare_type(cfg: Any) -> str:
    """Return the type of a part of a config without its scope; ``''`` if it has none."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    return str(getattr(kind, '__name__', kind or '')).split('.')[-1]


def evaluators_of(cfg: Config, split: str) -> list:
    """Return the configs of a split's metrics, of which a config has one or a list."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    return [*evaluators] if isinstance(evaluators, list) else [evaluators]


def innermost_dataset(dataset: Any) -> Any:
    """Return the dataset inside wrappers such as RepeatDataset, built or as a config."""
    is_cfg = isinstance(dataset, dict)
    inner = dataset.get('dataset') if is_cfg else getattr(dataset, 'dataset', None)
    return dataset if inner is None else innermost_dataset(inner)


def load_config(filename: str, options: Optional[dict[str, Any]] = None) -> Config:
    """Read a config file with ``--cfg-options``, which also change what is computed from them.

    MMEngine merges options into the finished config: ``max_epochs=30`` would leave the schedule,
    the pipeline switch and the detach at 300. Here a name that the config assigns is
    :func:`~.config_assignment.assigned`; every other option is merged as MMEngine does.

    Args:
        options (dict, optional): Dotted name -> value.

    Raises:
        ValueError: If the file is missing or can't be executed, or an option is neither in the
            config nor known to MMEngine.
    """
    options = dict(options or {})
    if not os.path.isfile(filename):
        raise UsageError(f'there is no config file {filename}')
    try:
        with assigned({k: v for k, v in options.items() if '.' not in k}) as replaced:
            cfg = Config.fromfile(filename)
    except UsageError:
        raise
    except Exception as error:  # the statements of a config raise anything
        given = ', '.join(f'{name}={value!r}' for name, value in options.items())
        raise UsageError(
            f"the config {filename} can't be read{_where(error)}: {type(error).__name__}: {error}"
            + (f' (with {given})' if given else '')
        ) from error
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *_EXTRA_KEYS}
    for name, value in options.items():
        top = name.split('.')[0]
        if top not in known:
            raise UsageError(
                f'--cfg-options: the config {filename} has no "{top}"' + near_misses(top, known)
            )
        if name not in replaced or name not in cfg:
            try:
                cfg.merge_from_dict({name: value})
            except (KeyError, TypeError) as error:
                raise UsageError(
                    f'--cfg-options: {name} does not fit the config {filename}: {error.args[0]}'
                ) from error
    return cfg


def read_dumped_config(filename: str) -> Config:
    """Read a config that MMEngine dumped, without executing, importing or replacing anything.

    Raises:
        ValueError: If it has anything but ``name = value`` with literal values.
    """
    values = {}
    try:
        with open(filename, encoding='utf-8') as file:
            statements = ast.parse(file.read()).body
        for statement in statements:
            (target,) = statement.targets
            values[target.id] = ast.literal_eval(_DictDisplays().visit(statement.value))
        return Config(values, filename=filename)
    except Exception as error:  # a file that is cut off or not a config raises anything
        raise UsageError(f'{filename} is not a config that MMEngine dumped ({error})') from error


class _DictDisplays(ast.NodeTransformer):
    """Turn ``dict(a=1)`` and ``dict({'a': 1})`` into ``{'a': 1}``."""

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
    """Return ``', line 7 of a.py'``, where a config file raised an error, else an empty string."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>'
    ]
    return f', line {frames[-1].lineno} of {frames[-1].filename}' if frames else ''
