"""Connectors whose channels a config leaves out."""

import inspect
from typing import Optional, Union

from torch import nn

from rtm_kd.registry import MODELS, SCOPE, model_class

# What the connectors, ours and MMRazor's, call the channels that come in and go out.
_INCOMING = ('in_channel', 'in_channels')
_OUTGOING = ('out_channel', 'out_channels')

# A connector's config, or those of several that run one after the other.
ConnectorCfg = Union[dict, list[dict]]


def build_connector(cfg: ConnectorCfg) -> Optional[nn.Module]:
    """Build a connector, or return None if its config leaves channels out.

    Types without a scope are looked up in ``rtm_kd``.
    """
    if any(map(_missing_channels, _parts(cfg))):
        return None
    built = [MODELS.build({'_scope_': SCOPE, **part}) for part in _parts(cfg)]
    return nn.Sequential(*built) if isinstance(cfg, (list, tuple)) else built[0]


def with_channels(cfg: ConnectorCfg, incoming: int, outgoing: int) -> ConnectorCfg:
    """Return a connector's config with these channels wherever it leaves them out."""
    filled = []
    for part in _parts(cfg):
        part = dict(part)
        for name in _missing_channels(part):
            part[name] = incoming if name in _INCOMING else outgoing
        filled.append(part)
        incoming = next((part[name] for name in _OUTGOING if name in part), incoming)
    return filled if isinstance(cfg, (list, tuple)) else filled[0]


def _missing_channels(cfg: dict) -> list[str]:
    """Names of the channel arguments that a connector needs and its config leaves out."""
    connector = model_class(cfg)
    if connector is None:
        return []
    return [
        name
        for name, parameter in inspect.signature(connector).parameters.items()
        if name in (*_INCOMING, *_OUTGOING)
        and parameter.default in (parameter.empty, None)
        and cfg.get(name) is None
    ]


def _parts(cfg: ConnectorCfg) -> list[dict]:
    return list(cfg) if isinstance(cfg, (list, tuple)) else [cfg]
