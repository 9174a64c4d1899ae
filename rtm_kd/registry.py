"""The registries of scope ``rtm_kd``, children of MMEngine's."""

import inspect
from typing import Optional

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'rtm_kd'

DATASETS = Registry('dataset', parent=roots.DATASETS, scope=SCOPE, locations=['rtm_kd.datasets'])
HOOKS = Registry('hook', parent=roots.HOOKS, scope=SCOPE, locations=['rtm_kd.engine'])
MODELS = Registry('model', parent=roots.MODELS, scope=SCOPE, locations=['rtm_kd.models'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=roots.OPTIM_WRAPPERS, scope=SCOPE, locations=['rtm_kd.engine']
)


def model_class(cfg: dict) -> Optional[type]:
    """Return the class that a model's config names, None where building it will say what is wrong.

    A type without a scope is looked up in ``rtm_kd``.
    """
    found = cfg.get('type')
    if isinstance(found, str):
        with MODELS.switch_scope_and_registry(cfg.get('_scope_', SCOPE)) as registry:
            found = registry.get(found)
    return found if inspect.isclass(found) else None
