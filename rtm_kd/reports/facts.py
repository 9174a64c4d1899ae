"""Tables of a page: results, settings, environment."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config

from rtm_kd.models.distillation import Distillation
from rtm_kd.models.distillers import expand
from rtm_kd.utils.config import bare_type, get_value, innermost_dataset
from rtm_kd.utils.errors import first_few

from .work_dir import WorkDir


def verdict(runs: Sequence[WorkDir]) -> str:
    """Return one sentence for the top of a page."""
    best = [_best(run) for run in runs]
    if len(runs) > 2:
        return 'Best val mAP: ' + ', '.join(
            f'{run.title} {found[1]:.3f}' if found else f'{run.title} none yet'
            for found, run in zip(best, runs)
        )
    return '; '.join(
        f'{run.title}: '
        + (f'best val mAP {found[1]:.3f}' if found else 'not evaluated yet')
        + f', {_state(run)}'
        for found, run in zip(best, runs)
    )


def facts(runs: Sequence[WorkDir]) -> dict[str, dict[str, list[str]]]:
    """Return the tables of a page: heading -> label of a row -> value in each run."""
    return {
        'Results': _rows([_results(run) for run in runs]),
        'Settings': _rows([_settings(run.cfg) for run in runs]),
        'Trained with': _rows([run.environment for run in runs]),
    }


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    labels = dict.fromkeys(label for column in columns for label in column)
    rows = {label: [_text(column.get(label)) for column in columns] for label in labels}
    return {label: values for label, values in rows.items() if any(values)}


def _text(value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_text, value))
    return str(value)


def _best(work_dir: WorkDir) -> Optional[tuple[float, float]]:
    metric = work_dir.metric()
    points = work_dir.curve(metric) if metric else []
    points = [point for point in points if not math.isnan(point[1])]
    return max(points, key=lambda point: point[1], default=None)


def _state(work_dir: WorkDir) -> str:
    if work_dir.finished:
        return f'finished after {work_dir.max_position} {work_dir.unit}s'
    of = '' if work_dir.max_position is None else f' of {work_dir.max_position}'
    return f'{work_dir.unit} {work_dir.position:.4g}{of}'


def _results(work_dir: WorkDir) -> dict[str, Any]:
    metric = work_dir.metric()
    best = _best(work_dir)
    found: dict[str, Any] = {'work dir': work_dir.path, 'state': _state(work_dir)}
    if best is not None:
        found[f'best {metric}'] = f'{best[1]:.3f} ({work_dir.unit} {best[0]:g})'
        found[f'last {metric}'] = f'{work_dir.curve(metric)[-1][1]:.3f}'
        half = work_dir.curve(f'{metric}_50')
        if half:
            found['at an IoU of 0.5, last'] = f'{half[-1][1]:.3f}'
    for distilling, what in ((True, 'with the teacher'), (False, 'without a teacher')):
        seconds = work_dir.seconds_per_iter(distilling)
        found[f'time per iteration, {what}'] = None if seconds is None else f'{seconds:.3g} s'
    memory = [value for _, value in work_dir.curve('memory')]
    found['peak GPU memory'] = f'{max(memory):g} MB' if memory else None
    day, time = work_dir.started.split('_')
    found['started'] = f'{day[:4]}/{day[4:6]}/{day[6:]} {time[:2]}:{time[2:4]}'
    found['last line of the log'] = work_dir.last_logged
    return found


def _settings(cfg: Optional[Config]) -> dict[str, Any]:
    if cfg is None:
        return {}
    model = cfg.get('model') or {}
    losses = expand(model.get('distiller') or {}).get('distill_losses') or {}
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if isinstance(hook, dict)]
    switches = [hook['switch_epoch'] for hook in hooks if 'switch_epoch' in hook]
    dataset = innermost_dataset(get_value(cfg, 'train_dataloader.dataset'))
    classes = get_value(dataset, 'metainfo.classes')
    if isinstance(classes, (list, tuple)):
        classes = first_few(list(map(str, classes)), 8)
    ann_file = get_value(dataset, 'ann_file')
    data_root = get_value(dataset, 'data_root') or ''
    distillation = Distillation.of(cfg)
    return {
        'model': _model(model.get('architecture', model)),
        'teacher': _model(model.get('teacher')),
        "teacher's checkpoint": model.get('teacher_ckpt'),
        'initial weights': None if cfg.get('resume') else cfg.get('load_from'),
        'distillation losses': _losses(losses),
        "MMRazor's arithmetic": model.get('reference'),
        'training annotations': os.path.join(data_root, ann_file) if ann_file else None,
        'classes': classes,
        'image size': cfg.get('img_scale'),
        'batch size': get_value(cfg, 'train_dataloader.batch_size'),
        'epochs': get_value(cfg, 'train_cfg.max_epochs'),
        'iterations': get_value(cfg, 'train_cfg.max_iters'),
        'epochs with the teacher': distillation and distillation.detach_epoch,
        'epochs before the pipeline switch': switches[-1] if switches else None,
        'optimizer': get_value(cfg, 'optim_wrapper.optimizer.type'),
        'learning rate': get_value(cfg, 'optim_wrapper.optimizer.lr'),
        'weight decay': get_value(cfg, 'optim_wrapper.optimizer.weight_decay'),
        'mixed precision': str(get_value(cfg, 'optim_wrapper.type')).endswith('AmpOptimWrapper'),
        'averaged weights (EMA)': any('EMA' in str(hook.get('type')) for hook in hooks),
        'seed': get_value(cfg, 'randomness.seed'),
    }


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
    counts: Counter[str] = Counter()
    for loss in losses.values():
        values = [f'{key}={value}' for key, value in loss.items() if key not in ('type', '_scope_')]
        counts[f'{bare_type(loss)}({", ".join(values)})'] += 1
    return ', '.join(f'{count} x {name}' for name, count in counts.items()) or None
