"""What of a distiller's config can be wrong before a feature has been seen."""

import dataclasses
import inspect
from collections.abc import Iterable

from torch import nn

from rtm_kd.utils.errors import UsageError, near_misses

from .feature_comparison import Tap


def recorder_sources(recorders: dict[str, dict], argument: str) -> dict[str, str]:
    """Return recorder name -> dotted module name, from the configs of the recorders.

    Raises:
        ValueError: If one is not of type ModuleOutputs, or has no source.
    """
    for name, recorder in recorders.items():
        if recorder.get('type') != 'ModuleOutputs' or not isinstance(recorder.get('source'), str):
            raise UsageError(
                f'{argument}["{name}"] must be dict(type="ModuleOutputs", source="a.module"), '
                f'got {dict(recorder)}'
            )
    return {name: recorder['source'] for name, recorder in recorders.items()}


def check_names(distiller: nn.Module) -> None:
    """Raise unless every name in a distiller's mappings refers to something, and all is used.

    Raises:
        ValueError: Naming the entry, the name and those that there are.
    """
    keys = [field.name for field in dataclasses.fields(Tap)]
    for loss_name, mapping in distiller.loss_forward_mappings.items():
        where = f'loss_forward_mappings["{loss_name}"]'
        _check_known(where, 'distill_losses', loss_name, distiller.distill_losses)
        signature = inspect.signature(distiller.distill_losses[loss_name].forward)
        for argument, location in mapping.items():
            here = f'{where}["{argument}"]'
            _check_known(here, 'arguments of the loss', argument, signature.parameters)
            for key in location:
                _check_known(here, 'keys of a mapping', key, keys)
            from_student = location.get('from_student')
            if not isinstance(from_student, bool):
                raise UsageError(f'{here} needs from_student=True or False, got {from_student!r}')
            side = 'student' if from_student else 'teacher'
            recorders = getattr(distiller, f'{side}_sources')
            _check_known(here, f'{side}_recorders', location.get('recorder'), recorders)
            if location.get('connector') is not None:
                _check_known(here, 'connectors', location['connector'], distiller.connectors)
        try:
            signature.bind(**mapping)
        except TypeError as error:
            raise UsageError(f'{where}: {error} of the loss') from None
    mapped = distiller.loss_forward_mappings
    _check_used('distill_losses', distiller.distill_losses, mapped)
    _check_used('connectors', distiller.connectors, distiller.connectors_of(mapped))


def _check_known(where: str, what: str, name: str, known) -> None:
    if name not in known:
        raise UsageError(
            f'{where}: "{name}" is not one of the {what} {list(known)}'
            + near_misses(str(name), known)
        )


def _check_used(what: str, names: Iterable[str], used: Iterable[str]) -> None:
    unused = [name for name in names if name not in used]
    if unused:
        raise UsageError(
            f'{what} {unused} are in no loss_forward_mappings, so they would do nothing; name each '
            'in one or remove it'
        )
