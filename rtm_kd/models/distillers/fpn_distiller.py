"""The short form of a distiller for the levels of an FPN."""

import copy
from collections import defaultdict
from typing import Any, Optional

from mmengine.config import Config, ConfigDict

from rtm_kd.registry import MODELS
from rtm_kd.utils.config import bare_type
from rtm_kd.utils.errors import UsageError

from .configurable_distiller import ConfigurableDistiller


def fpn_wiring(
    source: str,
    teacher_source: Optional[str] = None,
    num_levels: int = 3,
    loss_weight: float = 1.0,
    tau: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """Return the arguments of a :class:`ConfigurableDistiller` that compares FPN levels by PKD.

    Level ``i`` of the student passes a 1x1 convolution to the teacher's channels. Then both sides
    are brought to zero mean and unit variance by the statistics of the batch, and compared by the
    loss ``loss_pkd_fpn<i>``. The recorders are ``fpn<i>``, the connectors ``fpn<i>_s`` of the
    student and ``fpn<i>_t`` of the teacher.

    Args:
        source (str): The module that gives the features of a level, with ``{}`` in place of the
            level's number: ``'neck.out_layers.{}.conv'``.
        teacher_source (str, optional): The same for the teacher. Defaults to ``source``.
        num_levels (int): Number of levels, which count from 0. Defaults to 3.
        loss_weight (float): Weight of each level's loss. Defaults to 1.0.
        tau (float): Temperature of the softmax over space. Defaults to 1.0.
        changes: Other arguments of :class:`ConfigurableDistiller`. Its dicts are merged into those
            of the wiring as a config is into its base:
            ``distill_losses=dict(loss_pkd_fpn2=dict(loss_weight=0.0))``.

    Raises:
        ValueError: If a source has no ``{}``, or ``num_levels`` is not a positive integer.
    """
    sides = dict(student=source, teacher=source if teacher_source is None else teacher_source)
    for side, pattern in sides.items():
        if not isinstance(pattern, str) or '{}' not in pattern:
            raise UsageError(
                f'FpnDistiller: the source of the {side} needs {{}} in place of the number of the '
                f'level, as in "neck.out_layers.{{}}.conv", got {pattern!r}'
            )
    if not isinstance(num_levels, int) or num_levels < 1:
        raise UsageError(f'FpnDistiller: num_levels must be an integer above 0, got {num_levels!r}')
    norm_cfg = dict(type='BN', affine=False, track_running_stats=False)
    wiring: dict[str, dict[str, dict]] = defaultdict(dict)
    for i in range(num_levels):
        level = f'fpn{i}'
        for side, pattern in sides.items():
            recorder = dict(type='ModuleOutputs', source=pattern.replace('{}', str(i)))
            wiring[f'{side}_recorders'][level] = recorder
        wiring['connectors'][f'{level}_s'] = dict(
            type='rtm_kd.ConvModuleConnector', bias=False, norm_cfg=norm_cfg, act_cfg=None
        )
        wiring['connectors'][f'{level}_t'] = dict(type='rtm_kd.NormConnector', norm_cfg=norm_cfg)
        wiring['distill_losses'][f'loss_pkd_{level}'] = dict(
            type='rtm_kd.ChannelWiseDivergence', tau=tau, loss_weight=loss_weight
        )
        wiring['loss_forward_mappings'][f'loss_pkd_{level}'] = dict(
            preds_S=dict(from_student=True, recorder=level, connector=f'{level}_s'),
            preds_T=dict(from_student=False, recorder=level, connector=f'{level}_t'),
        )
    merged = Config(dict(wiring))
    # A copy: merging takes each "_delete_" out of what it merges.
    merged.merge_from_dict(copy.deepcopy(changes))
    return merged.to_dict()


@MODELS.register_module()
class FpnDistiller(ConfigurableDistiller):
    """The :class:`ConfigurableDistiller` of :func:`fpn_wiring`, whose arguments it takes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**fpn_wiring(**arguments))


def expand(distiller: dict[str, Any]) -> ConfigDict:
    """Return a distiller's config in full, as ``rtm_kd.ConfigurableDistiller`` takes it.

    Any but the short form of ``rtm_kd.FpnDistiller`` comes back as it is.

    Raises:
        ValueError: See :func:`fpn_wiring`.
    """
    if bare_type(distiller) != FpnDistiller.__name__:
        return ConfigDict(distiller)
    arguments = {key: value for key, value in distiller.items() if key != 'type'}
    return ConfigDict(type='rtm_kd.ConfigurableDistiller', **fpn_wiring(**arguments))
