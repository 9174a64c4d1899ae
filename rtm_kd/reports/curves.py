"""Curves of one training, or of several in one plot."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .page import COLOURS, Plot, curve, drawing, mark_event, to_svg
from .work_dir import DISTILL_PREFIX, STUDENT_LOSS_PREFIX, WorkDir

# A page shows means of more points than this.
_MAX_POINTS = 240


def plot_curves(runs: Sequence[WorkDir]) -> list[Plot]:
    """Draw mAP, each loss and the learning rate of all runs.

    The student's losses share the plots with those of a training without a teacher.
    """
    plots = []
    metric = next((metric for run in runs if (metric := run.metric())), None)
    if metric is not None:
        evaluations = [run.curve(metric) for run in runs]
        plots.append(_plot('val mAP', metric, runs, evaluations, markers=True))
    losses = {name.removeprefix(STUDENT_LOSS_PREFIX): None for run in runs for name in run.losses}
    if len(losses) > 1:
        losses.pop('loss', None)  # the sum of the others
    for name in losses:
        lines = [run.curve(name) or run.curve(STUDENT_LOSS_PREFIX + name) for run in runs]
        kind = 'distillation' if name.startswith(DISTILL_PREFIX) else 'detection'
        plots.append(_plot(f'{name.removeprefix(DISTILL_PREFIX)}, {kind}', name, runs, lines))
    rates = [run.curve('lr') for run in runs]
    if any(rates):
        plots.append(_plot('learning rate', 'lr', runs, rates))
    return plots


def _plot(
    title: str,
    name: str,
    runs: Sequence[WorkDir],
    lines: Sequence[Sequence[tuple[float, float]]],
    markers: bool = False,
) -> Plot:
    notes = []
    with drawing(3.6, 2.1) as (figure, axes):
        for run, points in zip(runs, lines):
            if not points:
                continue
            size = math.ceil(len(points) / _MAX_POINTS)
            groups = [points[start : start + size] for start in range(0, len(points), size)]
            means = [tuple(sum(part) / len(group) for part in zip(*group)) for group in groups]
            curve(axes, means, run.colour, markers)
            faults = [position for position, value in points if math.isnan(value)]
            if faults:
                notes.append(f'crosses: NaN or Inf ({run.title})')
                # At the lower edge.
                style = dict(transform=axes.get_xaxis_transform(), color=COLOURS['fault'])
                axes.plot(faults, [0.03] * len(faults), 'x', markersize=5, **style)
            if size > 1:
                notes.append(f'{run.title}: means of {size} logged values')
        _finish(axes, runs)
        described = f'{name} of {", ".join(run.title for run in runs)}'
        return Plot(title, '; '.join(notes), to_svg(figure, described))


def _finish(axes: Axes, runs: Sequence[WorkDir]) -> None:
    """Give a plot the axes that all plots of a page share, and mark what happened."""
    by_epoch = all(run.by_epoch for run in runs)
    axes.set_xlabel('epoch' if by_epoch else 'iteration')
    axes.grid()
    low, high = axes.get_ylim()
    if 0 < low < 0.5 * high:
        axes.set_ylim(bottom=0)
    end = max(run.position for run in runs)
    axes.set_xlim(0, end * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=by_epoch and end >= 2))
    marks: dict[float, dict[str, None]] = {}
    for run in runs:
        for position, what in run.marks:
            if 0 < position <= end:
                marks.setdefault(position, {})[what] = None
    # The words are above the curves.
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * len(marks) * (high - low))
    for row, (position, what) in enumerate(sorted(marks.items())):
        mark_event(axes, position, ', '.join(what), row)
