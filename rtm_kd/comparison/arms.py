"""The two sides of a comparison, worked out of one distillation config."""

import copy
import hashlib
import json
import os
from typing import Any, Optional

from mmengine.config import Config, ConfigDict

from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.algorithms.frozen_teacher import RANDOM
from rtm_kd.models.distillation import Distillation, ends, use_student
from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import STUDENT_PREFIX
from rtm_kd.utils.config import bare_type, innermost_dataset

ARMS = ('plain', 'distilled')
_CONTENT = 'content of the '
_NO_TEACHER = {
    None: 'there is no teacher_ckpt',
    RANDOM: 'its weights are random',
}


def paired_configs(cfg: Config) -> dict[str, Config]:
    """Return the configs of both sides, which differ in the distillation and in nothing else.

    Args:
        cfg (Config): Of a distillation.

    Returns:
        dict[str, Config]: ``'plain'`` and ``'distilled'``. Whatever they take from other config
        files, the student and the teacher, is written out, so that they stay the same when
        those files change.

    Raises:
        ValueError: If it does not distil, or can't be compared at equal budgets.
    """
    _check(cfg)
    distilled = copy.deepcopy(cfg)
    for part in ('architecture', 'teacher'):
        distilled.model[part] = resolve_model_cfg(distilled.model[part], part)
    distilled.resume = False
    distilled.custom_hooks = [*(distilled.get('custom_hooks') or [])]
    hooks = distilled.setdefault('default_hooks', ConfigDict())
    # What is compared is the last epoch's checkpoint, however the config selects others.
    checkpoint = hooks.get('checkpoint') or dict(
        type='CheckpointHook', interval=cfg.train_cfg.max_epochs
    )
    hooks.checkpoint = dict(checkpoint, save_last=True)

    plain = copy.deepcopy(distilled)
    preprocessor = plain.model.get('data_preprocessor') or plain.get('data_preprocessor')
    use_student(plain)
    if preprocessor is not None:
        plain.model.data_preprocessor = preprocessor
    plain.custom_hooks = [hook for hook in plain.custom_hooks if not ends(hook)]
    _rename_parameters(plain)
    for arm in (plain, distilled):
        arm.custom_hooks += [
            dict(type='rtm_kd.PairedRandomnessHook'),
            dict(type='rtm_kd.RunRecordHook'),
        ]
    return dict(plain=plain, distilled=distilled)


def teacher_config(arms: dict[str, Config]) -> tuple[Optional[Config], str]:
    """Return the config to evaluate the teacher with, on the images of the students.

    Args:
        arms (dict[str, Config]): What :func:`paired_configs` returns.

    Returns:
        Config | None: None if there is nothing to evaluate.
        str: Why not.
    """
    model = arms['distilled'].model
    checkpoint = model.get('teacher_ckpt')
    if checkpoint in _NO_TEACHER:
        return None, _NO_TEACHER[checkpoint]
    if not model.teacher.get('bbox_head'):
        return None, 'it has no bbox_head'
    teacher = copy.deepcopy(arms['plain'])
    # Its config may be meant for other classes than its checkpoint: a distillation reads no
    # head. Whether the checkpoint has these is seen when it is loaded.
    num_classes = _num_classes(model.architecture)
    overrides = {} if num_classes is None else dict(num_classes=num_classes)
    teacher.model = resolve_model_cfg({**model.teacher, **overrides}, 'teacher')
    return teacher, ''


def fingerprint(arms: dict[str, Config], amp: bool) -> dict[str, str]:
    """Return all that the runs depend on: dotted name -> value, of files their digest.

    The seed is not among them: more seeds can be added to a comparison.
    """
    distilled = arms['distilled']
    values = dict(distilled.to_dict(), amp=amp)
    flat = _flat(json.loads(json.dumps(values, default=repr)))
    files = {
        'teacher_ckpt': distilled.model.get('teacher_ckpt'),
        'load_from': distilled.get('load_from'),
    }
    for split in ('train', 'val'):
        dataset = innermost_dataset(distilled[f'{split}_dataloader'].dataset)
        files[f'{split} annotations'] = os.path.join(
            dataset.get('data_root') or '', dataset.get('ann_file') or ''
        )
    for what, path in files.items():
        if path and os.path.isfile(path):
            flat[f'{_CONTENT}{what} {path}'] = _digest(path)
    return flat


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return what has changed between two fingerprints, what stands at a config's top first."""
    changes = []
    for name in sorted({*before, *now}, key=lambda name: (name.count('.'), name)):
        old, new = before.get(name), now.get(name)
        if not name.startswith(_CONTENT):
            changes += [] if old == new else [f'{name}: {old} -> {new}']
        elif old is not None and new is not None and old != new:
            # A dataset may have drawn or converted itself since.
            changes.append(name)
    return changes


def _check(cfg: Config) -> None:
    name = cfg.filename
    model = cfg.model
    distillation = Distillation.of(cfg)
    if distillation is None or distillation.teacher is None:
        raise UsageError(
            f'{name} does not distil: its model, a {model.get("type")}, has no architecture and '
            'teacher; give a distillation config, such as '
            'configs/custom_dataset/kd_student_teacher.py'
        )
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch') is False or 'max_epochs' not in loop:
        raise UsageError(f'{name} does not train by epochs (train_cfg.max_epochs), as compare does')
    for split in ('train', 'val'):
        if not cfg.get(f'{split}_dataloader'):
            raise UsageError(f'{name} has no {split}_dataloader, and nothing to compare by')
    for hook in cfg.get('custom_hooks') or []:
        if bare_type(hook) == 'EarlyStoppingHook':
            raise UsageError(
                f'{name} has an EarlyStoppingHook, with which the two sides would train for '
                'different lengths; take it out of custom_hooks'
            )


def _rename_parameters(cfg: Config) -> None:
    """Let what the optimizer treats apart have the names that it has without a distillation."""
    keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys')
    if keys:
        cfg.optim_wrapper.paramwise_cfg.custom_keys = {
            key.removeprefix(STUDENT_PREFIX): value for key, value in keys.items()
        }


def _num_classes(model: Any) -> Optional[int]:
    if isinstance(model, dict):
        if 'num_classes' in model:
            return model['num_classes']
        for key, part in model.items():
            # Backbones have classes of ImageNet.
            found = None if key == 'backbone' else _num_classes(part)
            if found is not None:
                return found
    return None


def _flat(values: Any, name: str = '') -> dict[str, str]:
    if isinstance(values, (dict, list)) and values:
        parts = values.items() if isinstance(values, dict) else enumerate(values)
        flat = {}
        for key, value in parts:
            flat.update(_flat(value, f'{name}.{key}' if name else str(key)))
        return flat
    return {name: json.dumps(values)}


def _digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
