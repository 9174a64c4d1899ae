"""What one wants to know of a training besides its curves: how far, how well, from what."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from mmengine.config import Config

from rtm_kd.models.distillation import Distillation
from rtm_kd.models.distillers import expand
from rtm_kd.utils.config import bare_type, get_value, innermost_dataset

from .work_dir import Run, WorkDir

# Fewer digits than a float has, as many as a person reads.
_DIGITS = 4


class Fact(NamedTuple):
    """A row of a table: what it is, its value in each run, and whether these differ."""

    label: str
    values: list[str]
    differs: bool


def verdict(runs: Sequence[Run]) -> str:
    """Return one sentence for the top of a page."""
    best = [_best(run.work_dir) for run in runs]
    if len(runs) > 2:
        return 'Best val mAP: ' + ', '.join(
            f'{run.title} {found[1]:.3f}' if found else f'{run.title} none yet'
            for found, run in zip(best, runs)
        )
    return '; '.join(
        f'{run.title}: '
        + (f'best val mAP {found[1]:.3f}' if found else 'not evaluated yet')
        + f', {_state(run.work_dir)}'
        for found, run in zip(best, runs)
    )


def results(runs: Sequence[Run]) -> list[Fact]:
    """Return how far the runs are, what they reached and how long it took."""
    rows = _facts([_results(run.work_dir) for run in runs])
    # These always differ; what is worth a second look are settings that do.
    return [row._replace(differs=False) for row in rows]


def settings(runs: Sequence[Run]) -> list[Fact]:
    """Return the values of the configs that matter, those that exist."""
    return _facts([_settings(run.work_dir.cfg) for run in runs])


def environments(runs: Sequence[Run]) -> list[Fact]:
    """Return what the logs say of machine and versions."""
    return _facts([run.work_dir.environment for run in runs])


def _facts(columns: Sequence[Mapping[str, Any]]) -> list[Fact]:
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = []
    for label in labels:
        values = [_text(column.get(label)) for column in columns]
        if any(values):
            rows.append(Fact(label, values, len(set(values)) > 1))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.{_DIGITS}g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_text, value))
    return str(value)


def _best(work_dir: WorkDir) -> Optional[tuple[float, float]]:
    metric = work_dir.metric()
    points = work_dir.val_curve(metric) if metric else []
    points = [point for point in points if not math.isnan(point[1])]
    return max(points, key=lambda point: point[1], default=None)


def _state(work_dir: WorkDir) -> str:
    unit = 'epoch' if work_dir.by_epoch else 'iteration'
    if work_dir.finished:
        return f'finished after {work_dir.max_position} {unit}s'
    of = '' if work_dir.max_position is None else f' of {work_dir.max_position}'
    return f'{unit} {work_dir.position:.4g}{of}'


def _results(work_dir: WorkDir) -> dict[str, Any]:
    metric = work_dir.metric()
    best = _best(work_dir)
    unit = 'epoch' if work_dir.by_epoch else 'iteration'
    found: dict[str, Any] = {'work dir': work_dir.path, 'state': _state(work_dir)}
    if best is not None:
        found[f'best {metric}'] = f'{best[1]:.3f} ({unit} {best[0]:g})'
        found[f'last {metric}'] = f'{work_dir.val_curve(metric)[-1][1]:.3f}'
        half = work_dir.val_curve(f'{metric}_50')
        if half:
            found['at an IoU of 0.5, last'] = f'{half[-1][1]:.3f}'
    for distilling, what in ((True, 'with the teacher'), (False, 'without a teacher')):
        seconds = work_dir.seconds_per_iter(distilling)
        found[f'an iteration {what}'] = None if seconds is None else f'{seconds:.3g} s'
    memory = [value for _, value in work_dir.curve('memory')]
    found['most GPU memory'] = f'{max(memory):g} MB' if memory else None
    started = work_dir.started
    found['started'] = (
        f'{started[:4]}/{started[4:6]}/{started[6:8]} {started[9:11]}:{started[11:13]}'
    )
    found['last line of the log'] = work_dir.last_logged
    return found


def _settings(cfg: Optional[Config]) -> dict[str, Any]:
    if cfg is None:
        return {}
    model = cfg.get('model') or {}
    distiller = expand(model.get('distiller') or {})
    train = get_value(cfg, 'train_dataloader.dataset') or {}
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if isinstance(hook, dict)]
    optimizer = dict(get_value(cfg, 'optim_wrapper.optimizer') or {})
    found: dict[str, Any] = {
        'model': _model(model.get('architecture', model)),
        'teacher': _model(model.get('teacher')),
        "the teacher's checkpoint": model.get('teacher_ckpt'),
        'begins with': None if cfg.get('resume') else cfg.get('load_from'),
        'distillation losses': _losses(distiller.get('distill_losses') or {}),
        "teacher's half precision": model.get('half_teacher'),
        "MMRazor's arithmetic": model.get('reference'),
        'training annotations': _annotations(train),
        'classes': _shortened(get_value(train, 'metainfo.classes')),
        'image size': cfg.get('img_scale'),
        'images a batch': get_value(cfg, 'train_dataloader.batch_size'),
        'epochs': get_value(cfg, 'train_cfg.max_epochs'),
        'iterations': get_value(cfg, 'train_cfg.max_iters'),
    }
    distillation = Distillation.of(cfg)
    found['epochs with the teacher'] = distillation and distillation.detach_epoch
    for hook in hooks:
        if 'switch_epoch' in hook:
            found['epochs before the pipeline switch'] = hook['switch_epoch']
    found['optimizer'] = optimizer.get('type')
    found['learning rate'] = optimizer.get('lr')
    found['weight decay'] = optimizer.get('weight_decay')
    wrapper = str(get_value(cfg, 'optim_wrapper.type'))
    found['mixed precision'] = wrapper.endswith('AmpOptimWrapper')
    found['averaged weights (EMA)'] = any('EMA' in str(hook.get('type')) for hook in hooks)
    found['seed'] = get_value(cfg, 'randomness.seed')
    return found


def _model(model: Any) -> Optional[str]:
    if isinstance(model, (str, os.PathLike)):
        return Path(str(model).split('::')[-1]).stem
    if not isinstance(model, dict):
        return None
    if 'cfg_path' in model:
        return _model(model['cfg_path'])
    backbone = model.get('backbone') or {}
    sizes = [
        f'{what} {backbone[key]:g}'
        for key, what in (('widen_factor', 'width'), ('deepen_factor', 'depth'))
        if isinstance(backbone.get(key), (int, float))
    ]
    names = [model.get('type'), backbone.get('type'), get_value(model, 'bbox_head.type')]
    return ', '.join([*(str(name) for name in names if name), *sizes])


def _losses(losses: Mapping[str, Any]) -> Optional[str]:
    counted: dict[str, int] = {}
    for loss in losses.values():
        values = ', '.join(
            f'{key}={value}' for key, value in loss.items() if key not in ('type', '_scope_')
        )
        name = f'{bare_type(loss)}({values})'
        counted[name] = counted.get(name, 0) + 1
    return ', '.join(f'{count} x {name}' for name, count in counted.items()) or None


def _annotations(dataset: Any) -> Optional[str]:
    dataset = innermost_dataset(dataset)
    if not isinstance(dataset, dict) or not dataset.get('ann_file'):
        return None
    return os.path.join(dataset.get('data_root') or '', dataset['ann_file'])


def _shortened(classes: Any) -> Optional[str]:
    if not isinstance(classes, (list, tuple)):
        return None
    more = f' and {len(classes) - 8} more' if len(classes) > 8 else ''
    return ', '.join(map(str, classes[:8])) + more
