"""Configs of the two sides of a comparison, from one distillation config."""

import copy
import hashlib
import json
import os
from typing import Any, Optional

from mmengine.config import Config, ConfigDict

from rtm_kd.compat.checkpoint_load import file_digest
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.algorithms.frozen_teacher import RANDOM
from rtm_kd.models.distillation import Distillation, ends, use_student
from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import STUDENT_PREFIX
from rtm_kd.utils.config import bare_type, get_value, innermost_dataset

SIDES = ('plain', 'distilled')
_CONTENT = 'content of the '


def paired_configs(cfg: Config) -> dict[str, Config]:
    """Return the configs of both sides of a distillation, ``'plain'`` and ``'distilled'``.

    They differ in the distillation alone. Models from other config files are written out, so that
    they stay the same when those files change.

    Raises:
        UsageError: If it does not distil, or can't be compared at equal budgets.
    """
    _check(cfg)
    distilled = copy.deepcopy(cfg)
    for part in ('architecture', 'teacher'):
        distilled.model[part] = resolve_model_cfg(distilled.model[part], part)
    distilled.resume = False
    distilled.custom_hooks = [*(distilled.get('custom_hooks') or [])]
    hooks = distilled.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.get('checkpoint') or dict(
        type='CheckpointHook', interval=cfg.train_cfg.max_epochs
    )
    # The last epoch's checkpoint is compared, even if the config selects others, and a run resumes
    # from its work dir.
    own = {k: v for k, v in checkpoint.items() if k not in ('save_optimizer', 'out_dir')}
    hooks.checkpoint = dict(own, save_last=True)

    plain = copy.deepcopy(distilled)
    use_student(plain)
    plain.custom_hooks = [hook for hook in plain.custom_hooks if not ends(hook)]
    keys = (plain.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys')
    if keys:
        # Names of parameters, as they are without a distillation.
        plain.optim_wrapper.paramwise_cfg.custom_keys = {
            key.removeprefix(STUDENT_PREFIX): value for key, value in keys.items()
        }
    for side in (plain, distilled):
        side.custom_hooks += [
            dict(type='rtm_kd.PairedRandomnessHook'),
            dict(type='rtm_kd.RunRecordHook'),
        ]
    return dict(plain=plain, distilled=distilled)


def teacher_config(configs: dict[str, Config]) -> tuple[Optional[Config], str]:
    """Return the config to evaluate the teacher with, on the images of the students.

    ``configs`` are from :func:`paired_configs`. If it can't be evaluated: None, and why not.
    """
    model = configs['distilled'].model
    if model.get('teacher_ckpt') is None:
        return None, 'there is no teacher_ckpt'
    if model.teacher_ckpt == RANDOM:
        return None, 'its weights are random'
    if not model.teacher.get('bbox_head'):
        return None, 'it has no bbox_head'
    teacher = copy.deepcopy(configs['plain'])
    # Its config may have other classes than its checkpoint: a distillation does not read the
    # head. Loading the checkpoint shows whether it has the student's.
    num_classes = _num_classes(model.architecture)
    overrides = {} if num_classes is None else dict(num_classes=num_classes)
    teacher.model = resolve_model_cfg({**model.teacher, **overrides}, 'teacher')
    return teacher, ''


def fingerprint(configs: dict[str, Config], amp: bool) -> dict[str, str]:
    """Return all that the runs depend on: dotted name -> value, or the digest of a file.

    Seeds are left out, since more of them can be added to a comparison.
    """
    distilled = configs['distilled']
    values = dict(distilled.to_dict(), amp=amp)
    flat = _flat(json.loads(json.dumps(values, default=repr)))
    files = dict(
        teacher_ckpt=distilled.model.get('teacher_ckpt'), load_from=distilled.get('load_from')
    )
    for split in ('train', 'val', 'test'):
        dataset = innermost_dataset(get_value(distilled, f'{split}_dataloader.dataset', {}))
        parts = dataset.get('data_root') or '', dataset.get('ann_file') or ''
        files[f'{split} annotations'] = os.path.join(*parts)
    for what, path in files.items():
        if path and os.path.isfile(path):
            digest = file_digest(path, hashlib.blake2b(digest_size=16))
            flat[f'{_CONTENT}{what} {path}'] = digest
    return flat


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return what has changed between two fingerprints, top-level values first."""
    changes = []
    for name in sorted({*before, *now}, key=lambda name: (name.count('.'), name)):
        old, new = before.get(name), now.get(name)
        if not name.startswith(_CONTENT):
            changes += [] if old == new else [f'{name}: {old} -> {new}']
        elif old is not None and new is not None and old != new:
            # A dataset may have been drawn or converted since.
            changes.append(name)
    return changes


def _check(cfg: Config) -> None:
    name = cfg.filename
    distillation = Distillation.of(cfg)
    if distillation is None or distillation.teacher is None:
        raise UsageError(
            f'{name} does not distil: its model, a {cfg.model.get("type")}, has no architecture '
            'and teacher; give a distillation config, such as '
            'configs/custom_dataset/kd_student_teacher.py'
        )
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch') is False or 'max_epochs' not in loop:
        raise UsageError(f'{name} does not train by epochs (set train_cfg.max_epochs)')
    for split in ('train', 'val'):
        if not cfg.get(f'{split}_dataloader'):
            raise UsageError(f'{name} has no {split}_dataloader, which a comparison needs')
    for hook in cfg.get('custom_hooks') or []:
        if bare_type(hook) == 'EarlyStoppingHook':
            raise UsageError(
                f'{name} has an EarlyStoppingHook, so the two sides would train for different '
                'lengths; remove it from custom_hooks'
            )


def _num_classes(model: Any) -> Optional[int]:
    if not isinstance(model, dict) or 'num_classes' in model:
        return model['num_classes'] if isinstance(model, dict) else None
    # A backbone has the classes of ImageNet.
    parts = (_num_classes(part) for key, part in model.items() if key != 'backbone')
    return next((number for number in parts if number is not None), None)


def _flat(values: Any, name: str = '') -> dict[str, str]:
    if not isinstance(values, (dict, list)) or not values:
        return {name: json.dumps(values)}
    flat = {}
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        flat.update(_flat(value, f'{name}.{key}' if name else str(key)))
    return flat
