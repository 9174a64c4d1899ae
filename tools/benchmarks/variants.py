"""Configs of the same training, plain and distilled in several ways."""

from typing import Any, Optional

from mmengine.config import Config, ConfigDict

from rtm_kd.apis.test import use_student
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.distillers import expand
from rtm_kd.registry import MODELS

VARIANTS = (
    'plain',  # MMYOLO's training of the student
    'plain channels_last',  # the same in the memory format that ours uses
    'mmrazor',  # MMRazor's distillation
    'mmrazor stopped',  # the same after its hook has stopped it
    'rtm_kd',  # ours, with the teacher in float32
    'rtm_kd reference',  # ours with MMRazor's arithmetic
    'rtm_kd detached',  # ours after the detach
)


def variant(name: str, cfg: Config) -> Config:
    """Turn a distillation config of ours into one of :data:`VARIANTS`."""
    stopping = [hook for hook in cfg.custom_hooks if 'detach_epoch' in hook]
    others = [hook for hook in cfg.custom_hooks if 'detach_epoch' not in hook]
    if name.startswith('plain'):
        cfg.custom_hooks = others
        use_student(cfg)
    elif name.startswith('mmrazor'):
        stop = 0 if name == 'mmrazor stopped' else cfg.max_epochs
        cfg.custom_hooks = others + [dict(type='mmrazor.StopDistillHook', stop_epoch=stop)]
        cfg.model = mmrazor_cfg(cfg.model)
    else:
        cfg.model.reference = name == 'rtm_kd reference'
        for hook in stopping:
            hook.detach_epoch = 0 if name == 'rtm_kd detached' else cfg.max_epochs
    return cfg


def respell(value: Any, scope: str) -> Any:
    """Return a copy of a config in which the types of ours are those of another scope."""
    if isinstance(value, dict):
        return {key: respell(item, scope) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [respell(item, scope) for item in value]
    return value.replace('rtm_kd.', f'{scope}.') if isinstance(value, str) else value


def mmrazor_cfg(model: ConfigDict) -> ConfigDict:
    """Return a model config of ours in MMRazor's spelling, for a random teacher."""
    # MMRazor's connectors need their channels spelled out.
    distiller = expand(model.distiller)
    distiller.connectors = MODELS.build(model).distiller.connector_cfgs
    cfg = respell(ConfigDict(model, distiller=distiller), 'mmrazor')
    for key in ('teacher_ckpt', 'reference'):
        cfg.pop(key, None)
    for key in ('architecture', 'teacher'):
        cfg[key] = resolve_model_cfg(model[key], key)
    cfg['distiller']['_scope_'] = 'mmrazor'
    return ConfigDict(cfg)


def shorten(cfg: Config, work_dir: str, data_root: Optional[str]) -> None:
    """Reduce a config to its training steps, without anything that a step does not need."""
    cfg.work_dir = work_dir
    cfg.train_cfg = dict(type='SteppedTrainLoop', max_epochs=cfg.max_epochs)
    for split in ('val', 'test'):
        for key in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{key}'] = None
    cfg.randomness = dict(seed=0)
    cfg.log_level = 'ERROR'
    loader = cfg.train_dataloader
    loader.num_workers = 0
    loader.persistent_workers = False
    if data_root is not None:
        loader.dataset = dict(
            type='rtm_kd.DrawnDataset',
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            pipeline=loader.dataset.pipeline,
        )
    for model in (cfg.model, cfg.model.get('architecture'), cfg.model.get('teacher')):
        if isinstance(model, dict) and 'backbone' in model:
            # Pretrained weights would be a download.
            model.backbone.init_cfg = None
