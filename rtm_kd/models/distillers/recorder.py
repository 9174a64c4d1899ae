"""Recording of what modules of a detector return."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from rtm_kd.utils.errors import UsageError, near_misses

# Recorder name -> what its module returned, one entry for each time it was called.
Records = dict[str, list[Any]]

HEAD = 'bbox_head'


def check_sources(model: nn.Module, sources: dict[str, str], owner: str) -> None:
    """Raise unless every recorder's source is a module of the student or teacher, the ``owner``.

    Raises:
        ValueError: Naming the recorder, its source and the modules of similar name.
    """
    modules = dict(model.named_modules())
    for name, source in sources.items():
        if source not in modules:
            raise UsageError(
                f'the {owner} has no module "{source}", the source of its recorder "{name}"'
                + near_misses(source, modules)
            )


def record_features(
    model: nn.Module, batch_inputs: torch.Tensor, sources: dict[str, str]
) -> Records:
    """Run a detector's backbone and neck, and its head where a recorder asks for it.

    It gets preprocessed images, (N, 3, H, W); see :func:`record_outputs` for the rest.
    """
    with record_outputs(model, sources) as records:
        features = model.extract_feat(batch_inputs)
        if HEAD in recorded_parts(sources):
            model.bbox_head(features)
    return records


def recorded_parts(sources: dict[str, str]) -> set[str]:
    """Return the parts of a detector that recorders look into, such as ``'neck'``."""
    return {source.split('.')[0] for source in sources.values()}


@contextmanager
def record_outputs(model: nn.Module, sources: dict[str, str]) -> Iterator[Records]:
    """Collect what the named modules return while the context is open.

    The hooks live as long as the context: a copy, an export or a checkpoint of the model
    never meets them.

    Args:
        model (nn.Module): The student or the teacher, which runs inside the context.
        sources (dict[str, str]): Recorder name -> dotted module name.

    Yields:
        Records: Recorder name -> outputs, in the order of the calls.
    """
    records: Records = {name: [] for name in sources}
    with ExitStack() as hooks:
        for name, source in sources.items():

            def record(module, args, output, outputs=records[name]):
                outputs.append(output)

            hooks.enter_context(model.get_submodule(source).register_forward_hook(record))
        yield records
