"""Detectors and their configs, in every form that a config names them."""

import os
from importlib.util import find_spec
from typing import Union

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.model import BaseModel

from rtm_kd.registry import MODELS
from rtm_kd.utils.errors import UsageError

# The parts of a detector that make its features: all that is used of a teacher.
FEATURE_PARTS = ('backbone', 'neck')


def build_detector(model: Union[BaseModel, dict, str], argument: str) -> BaseModel:
    """Build a detector from any of the forms that :func:`resolve_model_cfg` takes.

    A built model is returned as it is.

    Raises:
        ValueError: If it is none of these forms, or has no ``extract_feat``.
    """
    if not isinstance(model, BaseModel):
        model = MODELS.build(resolve_model_cfg(model, argument))
    if not hasattr(model, 'extract_feat'):
        raise UsageError(
            f'{argument} is a {type(model).__name__}, which has no backbone and neck to record '
            'from (no extract_feat); give a detector'
        )
    return model


def resolve_model_cfg(model: Union[dict, str], argument: str) -> ConfigDict:
    """Turn any form of a model's config into the whole config, with the scope to build it in.

    Args:
        model (dict | str): One of

            - ``'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py'``, a config that
              an installed package brings;
            - the path of a config file, relative to the working directory;
            - ``dict(cfg_path=<either of these>, **overrides)``;
            - ``dict(type=..., ...)``, the model itself.

            ``num_classes`` in a dict is set wherever the model has one, in the head and in
            the assigner. Every other key overrides the model's own, as MMEngine's configs
            do, ``_delete_=True`` included.
        argument (str): Name of the argument that it came from, for messages.

    Raises:
        ValueError: If the config can't be found, or holds no model to override.
    """
    if isinstance(model, (str, os.PathLike)):
        model = dict(cfg_path=os.fspath(model))
    if not isinstance(model, dict) or not ('cfg_path' in model or 'type' in model):
        raise UsageError(
            f'{argument} must be a model, a model config (dict with "type"), a config path, or '
            f'a dict with "cfg_path", got {model!r}'
        )
    overrides = dict(model)
    num_classes = overrides.pop('num_classes', None)
    if 'cfg_path' in overrides:
        whole = _read_model_cfg(overrides.pop('cfg_path'), argument)
    else:
        whole, overrides = ConfigDict(overrides), {}
    # `_scope_` is written into the overrides of a config with a `package::` base.
    overrides.pop('_scope_', None)
    merged = Config(dict(model=whole))
    merged.merge_from_dict(dict(model=overrides))
    if num_classes is not None and not _set_num_classes(merged.model, num_classes):
        raise UsageError(f'{argument} has num_classes={num_classes}, but no part with classes')
    return merged.model


def _read_model_cfg(cfg_path: str, argument: str) -> ConfigDict:
    if '::' in cfg_path:
        package = cfg_path.split('::')[0]
        if find_spec(package) is None:
            raise UsageError(
                f'{argument}: the package of "{cfg_path}" is not installed, `pip install {package}`'
            )
        try:
            cfg = get_config(cfg_path)
        except (FileNotFoundError, ValueError, AssertionError) as error:
            raise UsageError(f'{argument}: no config "{cfg_path}" ({error})') from error
    elif os.path.isfile(cfg_path):
        cfg = Config.fromfile(cfg_path)
    else:
        raise UsageError(f'{argument}: no config file "{cfg_path}" in {os.getcwd()}')
    if 'model' not in cfg:
        raise UsageError(f'{argument}: the config "{cfg_path}" has no `model`')
    if 'architecture' in cfg.model:
        raise UsageError(
            f'{argument}: "{cfg_path}" is a distillation config; give the config of the '
            'detector itself'
        )
    cfg.model.setdefault('_scope_', cfg.get('default_scope', 'mmengine'))
    return cfg.model


def _set_num_classes(cfg: Union[dict, list], num_classes: int) -> bool:
    found = False
    parts = cfg.items() if isinstance(cfg, dict) else enumerate(cfg)
    for key, value in list(parts):
        if key == 'num_classes':
            cfg[key] = num_classes
            found = True
        elif isinstance(value, (dict, list)):
            found = _set_num_classes(value, num_classes) or found
    return found
