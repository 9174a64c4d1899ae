"""What of a distiller's config can be wrong before a feature has been seen."""

import dataclasses
import inspect

from torch import nn

from rtm_kd.utils.errors import UsageError, near_misses

from .feature_comparison import Tap


def recorder_sources(recorders: dict[str, dict], argument: str) -> dict[str, str]:
    """Return recorder name -> dotted module name.

    Args:
        recorders (dict[str, dict]): Recorder name -> its config.
        argument (str): Name of the argument that they are of, for the message.

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

    Args:
        distiller (ConfigurableDistiller): Its arguments have been taken over.

    Raises:
        ValueError: Naming the entry, the name and those that there are.
    """
    keys = {field.name for field in dataclasses.fields(Tap)} - {'in_float32'}
    for loss_name, mapping in distiller.loss_forward_mappings.items():
        where = f'loss_forward_mappings["{loss_name}"]'
        _check_known(where, 'distill_losses', loss_name, distiller.distill_losses)
        accepted = inspect.signature(distiller.distill_losses[loss_name].forward).parameters
        for argument, location in mapping.items():
            _check_known(f'{where}["{argument}"]', 'arguments of the loss', argument, accepted)
            for key in location:
                _check_known(f'{where}["{argument}"]', 'keys of a mapping', key, keys)
            if not isinstance(location.get('from_student'), bool):
                raise UsageError(
                    f'{where}["{argument}"] needs from_student=True or False, '
                    f'got {location.get("from_student")!r}'
                )
            side = 'student' if location['from_student'] else 'teacher'
            _check_known(
                f'{where}["{argument}"]',
                f'{side}_recorders',
                location.get('recorder'),
                getattr(distiller, f'{side}_sources'),
            )
            if location.get('connector') is not None:
                _check_known(
                    f'{where}["{argument}"]',
                    'connectors',
                    location['connector'],
                    distiller.connectors,
                )
        missing = [
            name
            for name, parameter in accepted.items()
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and name not in mapping
        ]
        if missing:
            raise UsageError(f'{where} gives no value for {missing} of the loss')
    unused = [
        name for name in distiller.distill_losses if name not in distiller.loss_forward_mappings
    ]
    if unused:
        raise UsageError(
            f'distill_losses {unused} have no entry in loss_forward_mappings, '
            'so they would never be computed; add one or remove the loss'
        )
    used = distiller.connectors_of(distiller.loss_forward_mappings)
    unused = [name for name in distiller.connectors if name not in used]
    if unused:
        raise UsageError(
            f'connectors {unused} are in no loss_forward_mappings, so no loss would train '
            'them; name each in one or remove it'
        )


def _check_known(where: str, what: str, name: str, known) -> None:
    if name not in known:
        raise UsageError(
            f'{where}: "{name}" is not one of the {what} {list(known)}'
            + near_misses(str(name), known)
        )
