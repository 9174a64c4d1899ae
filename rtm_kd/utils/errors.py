"""One sentence for what a user can mend; a traceback for everything else."""

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# What a full or forbidden disk answers; the user can mend it, and there is no bug to trace.
_DISK_ERRORS = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS)


class UsageError(ValueError):
    """Something that the user can put right: the message says what and how.

    The tools print it alone; any other exception keeps its traceback.
    """


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean "a" or "b"?'``, or nothing if no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return '; did you mean ' + ' or '.join(f'"{match}"' for match in close) + '?' if close else ''


@contextmanager
def report_usage_errors() -> Iterator[None]:
    """Print a :class:`UsageError` or a full disk as one line and exit with status 2.

    In a distributed run only the first process speaks; all of them exit.
    """
    try:
        yield
    except (UsageError, KeyError) as error:
        message = str(error) if isinstance(error, UsageError) else _unregistered(error)
        if message is None:
            raise
        _exit_with(message)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _exit_with(f'{error.filename}: {error.strerror}')


def _exit_with(message: str) -> None:
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def _unregistered(error: KeyError) -> 'str | None':
    """Put MMEngine's KeyError for a type that no registry knows into one sentence."""
    match = re.match(
        r'(\S+) is not in the (\S+)::(.+?) registry', str(error.args[0]) if error.args else ''
    )
    if match is None:
        return None
    name, scope, registry_name = match.groups()
    known = set()
    for root in _root_registries():
        if root.name == registry_name:
            known |= _names(root)
    return (
        f'the config names the type "{name}", and there is no {registry_name} of this name '
        f'(looked up from scope {scope})' + near_misses(name, known)
    )


def _root_registries() -> list:
    import mmengine.registry as registries

    return [value for value in vars(registries).values() if isinstance(value, registries.Registry)]


def _names(registry) -> set:
    prefix = '' if registry.parent is None else f'{registry.scope}.'
    names = {*registry.module_dict} | {prefix + name for name in registry.module_dict}
    for child in registry.children.values():
        names |= _names(child)
    return names
