"""What came out of a comparison, as plain data."""

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Optional

from .arms import ARMS
from .evaluation import METRICS
from .records import RunRecords
from .statistics import paired_difference, spread

Runs = dict[int, dict[str, RunRecords]]
_LABELS = {
    'mAP': 'mAP',
    'mAP_50': 'mAP at IoU 0.5',
    'mAP_75': 'mAP at IoU 0.75',
    'mAP_s': 'small objects',
    'mAP_m': 'medium objects',
    'mAP_l': 'large objects',
}
# Below this mAP a detector has not begun to detect.
_NOTHING_LEARNT = 0.01
_SIZES = ('mAP_s', 'mAP_m', 'mAP_l')


def summarise(
    runs: Runs, teacher: Optional[dict], teacher_reason: str, setting: dict[str, Any]
) -> dict[str, Any]:
    """Compare the runs.

    Args:
        runs (dict[int, dict[str, RunRecords]]): Seed -> side -> its run, evaluated.
        teacher (dict, optional): The teacher's evaluation.
        teacher_reason (str): Why there is none.
        setting (dict): What was compared, for the report; returned with what the runs know of
            it.

    Returns:
        dict: ``'verdict'``: ``'kind'``, one of ``'gain'``, ``'loss'``, ``'none'`` and
        ``'unknown'``, and ``'sentence'``; ``'notes'``: what else has to be said;
        ``'metrics'``, ``'costs'``: a list each of what was measured, of both sides;
        ``'curves'``: side -> seed -> points (epoch, val mAP); ``'pairing'``; ``'setting'``.
        It is plain data, as ``comparison.json`` has it.
    """
    # Of an instance segmentation the masks.
    kinds = list(_result(runs).keys())
    kind = 'segm' if 'segm' in kinds else kinds[0]
    metrics = _metrics(runs, teacher, kind)
    pairing = _pairing(runs)
    some = next(iter(runs.values()))['distilled']
    return dict(
        verdict=_verdict(metrics[0]['difference']),
        notes=_notes(metrics[0], teacher_reason, runs, pairing),
        metrics=metrics,
        costs=_costs(runs),
        curves={arm: _curves(runs, arm, kind) for arm in ARMS},
        pairing=pairing,
        setting=dict(
            setting,
            kind=kind,
            seeds=list(runs),
            epochs=some.begins[0]['max_epochs'],
            iterations=some.begins[0]['max_iters'],
            batch_size=some.trained['batch_size'],
            train_images=some.begins[0]['train_images'],
            evaluated_images=some.result['images'],
            gpu=some.trained['gpu'],
            machines=_distinct(runs, lambda run: run.trained['machine']),
            versions=_distinct(runs, lambda run: run.trained['versions']),
        ),
    )


def _result(runs: Runs) -> dict:
    return next(iter(runs.values()))['plain'].result['metrics']


def _metrics(runs: Runs, teacher: Optional[dict], kind: str) -> list[dict]:
    def row(name: str, label: str, group: str, of: Callable[[dict], Optional[float]]) -> dict:
        values = {arm: [of(pair[arm].result['metrics']) for pair in runs.values()] for arm in ARMS}
        entry = dict(name=name, label=label, group=group)
        # None where the data have no such object, the same in all runs.
        known = None not in values['plain'] + values['distilled']
        for arm in ARMS:
            entry[arm] = _side(values[arm]) if known else None
        entry['difference'] = _difference(values['plain'], values['distilled']) if known else None
        # A teacher of boxes alone may teach a student of masks.
        entry['teacher'] = (
            of(teacher['metrics']) if teacher and kind in teacher['metrics'] else None
        )
        return entry

    rows = [
        row(name, _LABELS[name], 'size' if name in _SIZES else 'all', lambda m, n=name: m[kind][n])
        for name in METRICS
    ]
    if kind == 'segm' and 'bbox' in _result(runs):
        boxes = row('bbox_mAP', 'mAP of the boxes', 'all', lambda m: m['bbox']['mAP'])
        rows.insert(3, boxes)
    for name in _result(runs)[kind]['classes']:
        rows.append(row(name, name, 'class', lambda m, n=name: m[kind]['classes'].get(n)))
    return rows


def _side(values: list[float]) -> dict:
    return dict(values=values, mean=statistics.fmean(values), sd=spread(values))


def _difference(plain: list[float], distilled: list[float]) -> dict:
    difference = paired_difference(plain, distilled)
    return dict(asdict(difference), verdict=difference.verdict)


def _verdict(difference: dict) -> dict[str, str]:
    kind, seeds = difference['verdict'], len(difference['values'])
    sentence = {
        'gain': f'Distillation helps: a gain of {interval(difference)} mAP over {seeds} seeds.',
        'loss': f'Distillation harms: a measurable loss, {interval(difference)} mAP over '
        f'{seeds} seeds.',
        'none': f'No measurable gain: {interval(difference)} mAP over {seeds} seeds.',
        'unknown': f'{difference["mean"]:+.3f} mAP with one seed, which may be chance.',
    }[kind]
    return dict(kind=kind, sentence=sentence)


def interval(difference: dict) -> str:
    """Return a difference as ``+0.012 [+0.003, +0.021]``, without an interval if it has none."""
    text = f'{difference["mean"]:+.3f}'
    if difference['low'] is not None:
        text += f' [{difference["low"]:+.3f}, {difference["high"]:+.3f}]'
    return text


def _notes(first: dict, teacher_reason: str, runs: Runs, pairing: dict) -> list[str]:
    notes = []
    difference, teacher = first['difference'], first['teacher']
    if max(first[arm]['mean'] for arm in ARMS) < _NOTHING_LEARNT:
        notes.append(
            'Neither side has learnt to detect anything, so this says nothing of distillation: the '
            'budget is too short, or the learning rate or the data are wrong.'
        )
    if difference['verdict'] == 'unknown':
        notes.append('Run it with --seeds 3 or more: what is there is kept.')
    elif difference['verdict'] == 'none':
        half = (difference['high'] - difference['low']) / 2
        notes.append(
            'The interval contains 0. With these seeds a difference below about '
            f'{half:.3f} mAP does not show; more seeds narrow the interval.'
        )
    if teacher is None:
        notes.append(f"The teacher's own mAP was not measured: {teacher_reason}.")
    elif difference['verdict'] != 'gain':
        plain, sd = first['plain']['mean'], first['plain']['sd'] or 0
        if teacher <= plain + sd:
            how = 'no' if teacher <= plain else 'hardly'
            spread = f' ± {sd:.3f}' if sd else ''
            notes.append(
                f'The teacher has {teacher:.3f} mAP on these images, {how} more than the plain '
                f'student with {plain:.3f}{spread}, so it has little to teach: train it longer, '
                'or take a larger one.'
            )
    for seed, pair in runs.items():
        for arm, run in pair.items():
            if run.resumed:
                after = ', '.join(map(str, run.resumed))
                notes.append(
                    f'Seed {seed}, {arm}: interrupted and resumed after iteration {after}. It then '
                    'saw the same images as without the interruption, augmented in another way.'
                )
    unequal = [
        f'{seed} (from epoch {epoch} on)'
        for seed, epoch in pairing['first_epoch_with_other_images'].items()
        if epoch is not None and not any(run.resumed for run in runs[int(seed)].values())
    ]
    if unequal:
        notes.append(
            f'The two sides did not get the same images with seed {", ".join(unequal)}: the '
            'comparison stays fair, its interval is wider than need be.'
        )
    for what, of in (
        ('different machines', lambda run: run.trained['machine']),
        ('different versions of the software', lambda run: run.trained['versions']),
    ):
        if len(_distinct(runs, of)) > 1:
            notes.append(f'The runs were made with {what}; times and memory may not compare.')
    return notes


def _pairing(runs: Runs) -> dict:
    """Return whether both sides of each seed began alike and saw the same images."""
    first = {}
    for seed, pair in runs.items():
        plain, distilled = pair['plain'].images, pair['distilled'].images
        unequal = [epoch for epoch, (a, b) in enumerate(zip(plain, distilled), 1) if a != b]
        first[str(seed)] = unequal[0] if unequal else None
    return dict(
        same_first_weights=all(
            pair['plain'].student == pair['distilled'].student for pair in runs.values()
        ),
        first_epoch_with_other_images=first,
    )


def _costs(runs: Runs) -> list[dict]:
    def row(name: str, label: str, unit: str, of: Callable[[RunRecords], float]) -> dict:
        entry = dict(name=name, label=label, unit=unit)
        for arm in ARMS:
            entry[arm] = _side([of(pair[arm]) for pair in runs.values()])
        entry['ratio'] = entry['distilled']['mean'] / entry['plain']['mean']
        return entry

    return [
        row('training_time', 'training time, without evaluation', 's', _training_seconds),
        row('memory', 'peak memory', 'bytes', _peak_memory),
        row('checkpoint', "checkpoint's size", 'bytes', lambda r: r.trained['checkpoint_bytes']),
        row('student', "student's size, its weights alone", 'bytes', _student_bytes),
    ]


def _student_bytes(run: RunRecords) -> int:
    return run.trained['student_bytes']


def _training_seconds(run: RunRecords) -> float:
    # Of an epoch that was interrupted only the rest was timed.
    iters = sum(record['iters'] for record in run.epochs.values())
    seconds = sum(record['seconds'] for record in run.epochs.values())
    return seconds * run.begins[0]['max_iters'] / iters


def _peak_memory(run: RunRecords) -> int:
    # A run that was resumed had several processes.
    return max(record['memory'] for record in run.epochs.values())


def _curves(runs: Runs, arm: str, kind: str) -> dict[str, list]:
    curves = {}
    for seed, pair in runs.items():
        evaluations = sorted(pair[arm].evaluations.items())
        curves[str(seed)] = [
            (epoch, next(v for k, v in metrics.items() if k.endswith(f'{kind}_mAP')))
            for epoch, metrics in evaluations
        ]
    return curves


def _distinct(runs: Runs, of: Callable[[RunRecords], Any]) -> list:
    values: list = []
    for pair in runs.values():
        for run in pair.values():
            if of(run) not in values:
                values.append(of(run))
    return values
