"""Errors from MMEngine's registries and runner, reworded to name the part of the config."""

import re
import reprlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import mmengine.registry
import mmengine.runner.runner
from mmengine.registry import Registry, build_from_cfg

from .errors import DISK_ERRORS, UsageError, near_misses


@contextmanager
def explain_build_errors() -> Iterator[None]:
    """Replace an error from a registry's ``build`` by a ValueError that names the config's part."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # a class that gets a wrong value raises anything
        built = _part_being_built(error)
        if built is None or getattr(error, 'errno', None) in DISK_ERRORS:
            raise
        raise UsageError(
            _unregistered(error)
            or f"the config's {built} can't be built: {type(error).__name__}: {_line(error)} "
            '(python -X dev shows where)'
        ) from error


def _part_being_built(error: Exception) -> Optional[str]:
    """Find the innermost part in the frames of MMEngine's builders, its only trace."""
    part = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code is build_from_cfg.__code__:
            cfg = frame.f_locals['cfg']
            name = cfg.get('type') if isinstance(cfg, dict) else cfg
            part = f'"{_line(name if isinstance(name, str) else reprlib.repr(name))}"'
        elif code.co_filename == mmengine.runner.runner.__file__ and (
            # What the runner rejects before it asks a registry.
            code.co_name.startswith(('__init__', 'build_', 'register_'))
        ):
            part = code.co_name.replace('__init__', 'runner').split('_', 1)[-1]
    return part


def _line(text: object) -> str:
    return ' '.join(str(text).split())


def _unregistered(error: Exception) -> Optional[str]:
    """Return MMEngine's KeyError for an unknown type as one sentence, None for other errors."""
    match = re.match(
        r'(\S+) is not in the (\S+)::(.+?) registry', str(error.args[0]) if error.args else ''
    )
    if match is None:
        return None
    name, scope, registry_name = match.groups()
    known = set()
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry) and root.name == registry_name:
            known |= _names(root)
    return (
        f'the config names the type "{name}", and there is no {registry_name} of this name '
        f'(looked up from scope {scope})' + near_misses(name, known)
    )


def _names(registry: Registry) -> set[str]:
    prefix = '' if registry.parent is None else f'{registry.scope}.'
    own = {*registry.module_dict} | {prefix + name for name in registry.module_dict}
    return own.union(*(_names(child) for child in registry.children.values()))
