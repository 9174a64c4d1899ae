"""Statistics of pairs of runs, and the summary of a comparison as it is in comparison.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from scipy import stats

from rtm_kd.utils import UsageError

from .evaluation import METRICS
from .records import RunRecords
from .sides import SIDES

CONFIDENCE = 0.95
Runs = dict[str, list[RunRecords]]  # side -> run of each seed
# Below this mAP a detector has not begun to detect.
_NOTHING_LEARNED = 0.01


@dataclass(frozen=True)
class Sample:
    """A quantity of the runs of one side: its values, mean and standard deviation (n - 1).

    A single value has no deviation, ``sd`` is None.
    """

    values: list[float]
    mean: float
    sd: Optional[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Sample':
        """Return the sample of some values."""
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(list(values), float(np.mean(values)), sd)

    def __str__(self) -> str:
        return f'{self.mean:.3f}' + ('' if self.sd is None else f' ± {self.sd:.3f}')


@dataclass(frozen=True)
class Difference:
    """How far the second values of pairs are above the first."""

    values: list[float]  # second minus first, of each pair
    mean: float
    # The confidence interval of the mean; None for a single pair.
    low: Optional[float] = None
    high: Optional[float] = None
    # 'gain' or 'loss' if the interval is on one side of 0, else 'none'; 'unknown' without one.
    verdict: str = 'unknown'

    def __str__(self) -> str:
        interval = '' if self.low is None else f' [{self.low:+.3f}, {self.high:+.3f}]'
        return f'{self.mean:+.3f}{interval}'


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    r"""Compare pairs of values, with the interval of the paired t-test.

    .. math:: \bar d \pm t_{n-1} \cdot s_d / \sqrt n

    What both values of a pair share, as two runs of one seed share first weights and images,
    drops out of the difference.

    Raises:
        UsageError: If there are no pairs, or not as many first as second values.
    """
    if not first or len(first) != len(second):
        raise UsageError(f'cannot pair {len(first)} values with {len(second)}')
    values = np.subtract(second, first)
    mean = float(values.mean())
    if len(values) == 1:
        return Difference(values.tolist(), mean)
    # Not scipy's ttest_rel: its interval is NaN if all differences are the same.
    half = float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    low, high = mean - half, mean + half
    verdict = 'gain' if low > 0 else 'loss' if high < 0 else 'none'
    return Difference(values.tolist(), mean, low, high, verdict)


@dataclass
class Verdict:
    """The result in a sentence; for its kind see :class:`Difference`."""

    kind: str
    sentence: str


@dataclass
class Metric:
    """A metric of both sides; None where the data have no such objects.

    ``group`` is ``'all'``, ``'size'`` or ``'class'``.
    """

    name: str
    label: str
    group: str
    plain: Optional[Sample] = None
    distilled: Optional[Sample] = None
    difference: Optional[Difference] = None
    teacher: Optional[float] = None


@dataclass
class Cost:
    """What a run of each side costs, in ``'s'`` or ``'bytes'``; ``ratio`` is distilled / plain."""

    name: str
    label: str
    unit: str
    plain: Sample
    distilled: Sample
    ratio: float


@dataclass
class Summary:
    """What a comparison found."""

    verdict: Verdict
    notes: list[str]  # what qualifies the verdict
    metrics: list[Metric]
    costs: list[Cost]
    curves: dict[str, dict[str, list[tuple[int, float]]]]  # side -> seed -> (epoch, val mAP)
    # Whether both sides began alike, and from which epoch on they got other images.
    pairing: dict[str, Any]
    setting: dict[str, Any]  # what was compared, how and where


def summarise(
    runs: Runs, teacher: Optional[dict], teacher_reason: str, setting: dict[str, Any]
) -> Summary:
    """Compare the runs.

    Args:
        runs (dict[str, list[RunRecords]]): Side -> its runs, evaluated, with the seeds 0, 1, ...
        teacher (dict, optional): The teacher's evaluation.
        teacher_reason (str): Why there is none.
        setting (dict): What was compared; gets what the runs know of it.
    """
    some = runs['distilled'][0]
    # Masks, if it is instance segmentation.
    kind = 'segm' if 'segm' in some.result['metrics'] else next(iter(some.result['metrics']))
    metrics = _metrics(runs, (teacher or {}).get('metrics', {}), kind)
    pairs = list(zip(*(runs[side] for side in SIDES)))
    pairing = dict(
        same_first_weights=all(plain.student == distilled.student for plain, distilled in pairs),
        first_epoch_with_other_images={
            str(seed): next((n for n, (a, b) in enumerate(images, 1) if a != b), None)
            for seed, images in enumerate(zip(p.images, d.images) for p, d in pairs)
        },
    )
    return Summary(
        verdict=_verdict(metrics[0].difference),
        notes=_notes_on_result(metrics[0], teacher_reason) + _notes_on_runs(runs, pairing),
        metrics=metrics,
        costs=_costs(runs),
        curves={
            side: {str(seed): run.curve(kind) for seed, run in enumerate(runs[side])}
            for side in SIDES
        },
        pairing=pairing,
        setting=dict(
            setting,
            kind=kind,
            seeds=list(range(len(pairs))),
            epochs=some.begins[0]['max_epochs'],
            iterations=some.begins[0]['max_iters'],
            batch_size=some.trained['batch_size'],
            train_images=some.begins[0]['train_images'],
            evaluated_images=some.result['images'],
            gpu=some.trained['gpu'],
            machines=_distinct(runs, 'machine'),
            versions=_distinct(runs, 'versions'),
        ),
    )


def _values(runs: Runs, value: Callable[[RunRecords], Any]) -> tuple[list, list]:
    return tuple([value(run) for run in runs[side]] for side in SIDES)


def _metrics(runs: Runs, teacher: dict, kind: str) -> list[Metric]:
    def metric(name: str, label: str, group: str, value: Callable, kind: str = kind) -> Metric:
        plain, distilled = _values(runs, lambda run: value(run.result['metrics'][kind]))
        # A teacher of boxes alone may teach a student of masks.
        row = Metric(name, label, group, teacher=value(teacher[kind]) if kind in teacher else None)
        # The data have such objects in all runs or in none.
        if None not in plain + distilled:
            row.plain, row.distilled = Sample.of(plain), Sample.of(distilled)
            row.difference = paired_difference(plain, distilled)
        return row

    sizes = ('_s', '_m', '_l')
    rows = [
        metric(name, label, 'size' if name[-2:] in sizes else 'all', lambda m, n=name: m[n])
        for name, label in METRICS.items()
    ]
    result = runs['plain'][0].result['metrics']
    if kind == 'segm' and 'bbox' in result:
        boxes = metric('bbox_mAP', 'mAP of the boxes', 'all', lambda m: m['mAP'], 'bbox')
        rows.insert(3, boxes)
    for name in result[kind]['classes']:
        rows.append(metric(name, name, 'class', lambda m, n=name: m['classes'].get(n)))
    return rows


def _verdict(difference: Difference) -> Verdict:
    over = f'{difference} mAP over {len(difference.values)} seeds.'
    sentences = {
        'gain': f'Distillation helps: a gain of {over}',
        'loss': f'Distillation harms: a measurable loss, {over}',
        'none': f'No measurable gain: {over}',
        'unknown': f'{difference} mAP with one seed, which may be chance.',
    }
    return Verdict(difference.verdict, sentences[difference.verdict])


def _notes_on_result(mAP: Metric, teacher_reason: str) -> list[str]:
    notes = []
    difference, plain, teacher = mAP.difference, mAP.plain, mAP.teacher
    if max(plain.mean, mAP.distilled.mean) < _NOTHING_LEARNED:
        notes.append(
            'Neither side has learned to detect anything, so this says nothing about distillation: '
            'the budget is too short, or the learning rate or the data are wrong.'
        )
    if difference.verdict == 'unknown':
        notes.append('Run it with --seeds 3 or more: finished runs are kept.')
    elif difference.verdict == 'none':
        notes.append(
            'The interval contains 0. With these seeds a difference below about '
            f'{(difference.high - difference.low) / 2:.3f} mAP does not show; more seeds narrow '
            'the interval.'
        )
    if teacher is None:
        notes.append(f"The teacher's own mAP was not measured: {teacher_reason}.")
    elif difference.verdict != 'gain' and teacher <= plain.mean + (plain.sd or 0):
        how = 'no' if teacher <= plain.mean else 'hardly'
        student = plain if plain.sd else f'{plain.mean:.3f}'
        notes.append(
            f'The teacher has {teacher:.3f} mAP on these images, {how} more than the plain '
            f'student with {student}, so it has little to teach: train it longer, or take a larger '
            'one.'
        )
    return notes


def _notes_on_runs(runs: Runs, pairing: dict) -> list[str]:
    notes, unequal = [], []
    for seed, epoch in pairing['first_epoch_with_other_images'].items():
        resumed = {side: runs[side][int(seed)].resumed for side in SIDES}
        if epoch is not None and not any(resumed.values()):
            unequal.append(f'{seed} (from epoch {epoch} on)')
        notes += [
            f'Seed {seed}, {side}: interrupted and resumed after iteration '
            f'{", ".join(map(str, iterations))}. It then saw the same images as without the '
            'interruption, augmented in another way.'
            for side, iterations in resumed.items()
            if iterations
        ]
    if unequal:
        notes.append(
            f'The two sides did not get the same images with seed {", ".join(unequal)}: the '
            'comparison stays fair, but its interval is wider than necessary.'
        )
    for key, what in (('machine', 'machines'), ('versions', 'versions of the software')):
        if len(_distinct(runs, key)) > 1:
            notes.append(
                f'The runs were made with different {what}; times and memory may not compare.'
            )
    return notes


def _costs(runs: Runs) -> list[Cost]:
    def cost(name: str, label: str, unit: str, value: Callable[[RunRecords], float]) -> Cost:
        plain, distilled = map(Sample.of, _values(runs, value))
        return Cost(name, label, unit, plain, distilled, distilled.mean / plain.mean)

    weights = "student's size, its weights alone"
    return [
        cost('training_time', 'training time, without evaluation', 's', lambda run: run.seconds),
        cost('memory', 'peak memory', 'bytes', lambda run: run.memory),
        cost(
            'checkpoint', "checkpoint's size", 'bytes', lambda run: run.trained['checkpoint_bytes']
        ),
        cost('student', weights, 'bytes', lambda run: run.trained['student_bytes']),
    ]


def _distinct(runs: Runs, key: str) -> list:
    values = []
    for run in runs['plain'] + runs['distilled']:
        if run.trained[key] not in values:
            values.append(run.trained[key])
    return values
