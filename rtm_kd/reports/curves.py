"""The curves of one training, or of several in one plot."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from .plots import COLOURS, curve, drawing, finish, mark_event, mark_faults, to_svg
from .work_dir import DISTILL_PREFIX, STUDENT_LOSS_PREFIX, Run

# Of more points than this a page shows means.
_MAX_POINTS = 240
_SIZE = 3.6, 2.1  # inches


class Plot(NamedTuple):
    """A plot for a page: what it shows, what else is to be said of it, and the drawing."""

    title: str
    note: str
    svg: Markup


def plot_curves(runs: Sequence[Run]) -> list[Plot]:
    """Draw mAP, each loss and the learning rate of all runs.

    The student's losses have the same plots as those of a training without a teacher.

    Args:
        runs (Sequence[Run]): At least one.

    Returns:
        list[Plot]: In the order in which one reads them.
    """
    by_epoch = all(run.work_dir.by_epoch for run in runs)
    plots = []
    metric = next((metric for run in runs if (metric := run.work_dir.metric())), None)
    if metric is not None:
        evaluations = [run.work_dir.val_curve(metric) for run in runs]
        plots.append(_plot('val mAP', metric, runs, evaluations, by_epoch, markers=True))
    losses = {
        name.removeprefix(STUDENT_LOSS_PREFIX): None for run in runs for name in run.work_dir.losses
    }
    if len(losses) > 1:
        losses.pop('loss', None)  # the sum of the others
    for name in losses:
        lines = [
            run.work_dir.curve(name) or run.work_dir.curve(STUDENT_LOSS_PREFIX + name)
            for run in runs
        ]
        what = 'distillation' if name.startswith(DISTILL_PREFIX) else 'detection'
        title = f'{name.removeprefix(DISTILL_PREFIX)}, {what}'
        plots.append(_plot(title, name, runs, lines, by_epoch))
    rates = [run.work_dir.curve('lr') for run in runs]
    if any(rates):
        plots.append(_plot('learning rate', 'lr', runs, rates, by_epoch))
    return plots


def _plot(
    title: str,
    name: str,
    runs: Sequence[Run],
    lines: Sequence[Sequence[tuple[float, float]]],
    by_epoch: bool,
    markers: bool = False,
) -> Plot:
    notes = []
    with drawing(*_SIZE) as (figure, axes):
        for run, points in zip(runs, lines):
            if not points:
                continue
            faults = [position for position, value in points if math.isnan(value)]
            grouped, size = _means(points)
            colour = COLOURS[run.colour]
            curve(axes, grouped, colour, label=run.title, markers=markers)
            if faults:
                mark_faults(axes, faults)
                notes.append(f'crosses: no number ({run.title})')
            if size > 1:
                notes.append(f'{run.title}: means of {size} logged values')
        _finish(axes, runs, lines, by_epoch)
        described = f'{name} of {", ".join(run.title for run in runs)}'
        return Plot(title, '; '.join(notes), to_svg(figure, described))


def _finish(axes, runs: Sequence[Run], lines: Sequence, by_epoch: bool) -> None:
    finish(axes, x='epoch' if by_epoch else 'iteration')
    if axes.get_ylim()[0] > 0 and axes.get_ylim()[0] < 0.5 * axes.get_ylim()[1]:
        axes.set_ylim(bottom=0)
    # One look from the beginning to where the longest run is, the same in all plots.
    end = max(run.work_dir.position for run in runs)
    axes.set_xlim(0, end * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=by_epoch and end >= 2))
    marks: dict[float, dict[str, None]] = {}
    for run in runs:
        for position, what in run.work_dir.marks:
            if 0 < position <= end:
                marks.setdefault(position, {})[what] = None
    if marks:
        low, high = axes.get_ylim()
        # The words stand above the curves.
        axes.set_ylim(low, high + 0.12 * len(marks) * (high - low))
    for row, (position, what) in enumerate(sorted(marks.items())):
        mark_event(axes, position, ', '.join(what), row)


def _means(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], int]:
    """Return at most as many points as a page needs, and of how many each is the mean."""
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(part) / len(group) for part in zip(*group)) for group in groups], size
