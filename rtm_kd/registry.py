"""The registries of scope ``rtm_kd``, children of MMEngine's."""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

SCOPE = 'rtm_kd'

DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope=SCOPE, locations=['rtm_kd.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['rtm_kd.engine'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['rtm_kd.models'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=['rtm_kd.engine']
)
