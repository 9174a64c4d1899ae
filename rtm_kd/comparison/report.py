"""Summary of a comparison as Markdown and as an HTML page."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from terminaltables import GithubFlavoredMarkdownTable

from rtm_kd.reports.page import COLOURS, Plot, curve, drawing, mark_event, render_page, to_svg

from .progress import clock
from .sides import SIDES
from .summary import CONFIDENCE, Cost, Difference, Metric, Summary

_INTERVAL = f'{CONFIDENCE:.0%} interval'
# Classes in a plot; of more, those with the largest gains and losses.
_MAX_CLASSES = 30


def terminal_table(summary: Summary) -> str:
    """Return the verdict, the tables and the notes as Markdown."""
    metrics = [row for row in summary.metrics if row.difference is not None]
    parts = [
        summary.verdict.sentence,
        _table([['', *_metric_head(summary)], *map(_metric_row, metrics)]),
        _table([['mAP of each run', *SIDES, 'difference'], *_seed_rows(summary)]),
        _table([['mean of the runs', *SIDES, 'distilled / plain'], *map(_cost_row, summary.costs)]),
        '\n'.join(summary.notes),
    ]
    return '\n\n'.join(parts).rstrip() + '\n'


def html_page(summary: Summary) -> str:
    """Return a self-contained page without scripts."""
    return render_page(
        'comparison.html',
        summary=summary,
        setting=summary.setting,
        interval=_INTERVAL,
        head=_metric_head(summary),
        metrics=[_metric_row(row) for row in summary.metrics if row.group != 'class'],
        classes=[_metric_row(row) for row in summary.metrics if row.group == 'class'],
        costs=[_cost_row(row) for row in summary.costs],
        seeds=_seed_rows(summary),
        plots=_plots(summary),
    )


def _metric_head(summary: Summary) -> list[str]:
    several = len(summary.setting['seeds']) > 1
    return [*SIDES, f'difference [{_INTERVAL}]' if several else 'difference', 'teacher']


def _metric_row(row: Metric) -> list[str]:
    teacher = '-' if row.teacher is None else f'{row.teacher:.3f}'
    cells = ['-' if x is None else str(x) for x in (row.plain, row.distilled, row.difference)]
    return [row.label, *cells, teacher]


def _seed_rows(summary: Summary) -> list[list[str]]:
    mAP = summary.metrics[0]
    values = zip(mAP.plain.values, mAP.distilled.values, mAP.difference.values)
    return [
        [f'seed {seed}', f'{plain:.3f}', f'{distilled:.3f}', f'{difference:+.3f}']
        for seed, (plain, distilled, difference) in zip(summary.setting['seeds'], values)
    ]


def _cost_row(row: Cost) -> list[str]:
    def quantity(value: float) -> str:
        if row.unit == 's':
            return clock(value)
        return f'{value / 1e9:.2f} GB' if value >= 1e9 else f'{value / 1e6:.1f} MB'

    means = quantity(row.plain.mean), quantity(row.distilled.mean)
    return [row.label, *means, f'{row.ratio:.2f}']


def _table(rows: list[list[str]]) -> str:
    table = GithubFlavoredMarkdownTable(rows)
    table.justify_columns = {i: 'right' for i in range(1, len(rows[0]))}
    return table.table


def _plots(summary: Summary) -> list[Plot]:
    several = len(summary.setting['seeds']) > 1
    note = 'A line joins the two runs of a seed.'
    note += ' At the right their differences, mean and interval.' * several
    plots = [Plot('Pairs of runs', note, _plot_pairs(summary.metrics[0]), SIDES)]
    if any(points for curves in summary.curves.values() for points in curves.values()):
        note = 'Mean of the seeds, and each of them.' * several
        plots.append(Plot('While training', note, _plot_curves(summary), SIDES))
    note = 'Distilled minus plain, in mAP: above all objects and by size, below by class.'
    note += ' In colour where the interval leaves 0 out.' * several
    rows = [row for row in summary.metrics if row.difference is not None]
    sizes = [row for row in rows if row.name == 'mAP' or row.group == 'size']
    classes = [row for row in rows if row.group == 'class']
    if len(classes) > _MAX_CLASSES:
        half = _MAX_CLASSES // 2
        note += f' Of {len(classes)} classes the first and the last {half}.'
        classes.sort(key=lambda row: -row.difference.mean)
        classes = classes[:half] + classes[-half:]
    return [*plots, Plot('Where the difference is', note, _plot_differences(sizes, classes))]


def _plot_pairs(row: Metric) -> Markup:
    with drawing(4.6, 3.0, columns=2, width_ratios=[2, 1]) as (figure, (pairs, differences)):
        both = row.plain.values, row.distilled.values
        pairs.plot((0, 1), both, color=COLOURS['muted'], linewidth=1, zorder=1)
        for x, side in enumerate(SIDES):
            values = getattr(row, side).values
            pairs.scatter([x] * len(values), values, s=28, color=COLOURS[side], zorder=2)
        if row.teacher is not None:
            style = dict(color=COLOURS['teacher'])
            pairs.axhline(row.teacher, linestyle='--', linewidth=1.2, **style)
            offset = dict(xytext=(0, 3), textcoords='offset points', ha='center')
            pairs.annotate('teacher', (0.5, row.teacher), fontsize=8, **offset, **style)
        pairs.set(xlim=(-0.4, 1.4), xticks=(0, 1), xticklabels=SIDES, ylabel='mAP')
        pairs.margins(y=0.12)
        pairs.grid(axis='y')

        differences.axhline(0, color=COLOURS['ink'], linewidth=0.8)
        values = row.difference.values
        differences.scatter([-0.25] * len(values), values, s=16, color=COLOURS['muted'])
        _plot_interval(differences, 0.1, row.difference, vertical=True)
        differences.set(xlim=(-0.7, 0.6), xticks=[], ylabel='distilled minus plain')
        differences.margins(y=0.15)
        differences.grid(axis='y')
        plain, distilled = (
            ' '.join(f'{value:.3f}' for value in sample.values)
            for sample in (row.plain, row.distilled)
        )
        described = f'plain {plain}, distilled {distilled}; difference {row.difference}'
        return to_svg(figure, f'mAP of each seed, {described}')


def _plot_curves(summary: Summary) -> Markup:
    detach, epochs = summary.setting['detach_epoch'], summary.setting['epochs']
    with drawing(4.6, 3.0) as (figure, axes):
        for side in SIDES:
            curves = [points for points in summary.curves[side].values() if points]
            for points in curves:
                curve(axes, points, side, faint=len(curves) > 1)
            if len(curves) > 1:
                values = [dict(points) for points in curves]
                common = sorted(set(values[0]).intersection(*values))
                means = [(epoch, sum(v[epoch] for v in values) / len(values)) for epoch in common]
                curve(axes, means, side)
        if detach is not None and detach < epochs:
            mark_event(axes, detach, 'teacher detached')
        axes.set(xlim=(0, epochs * 1.03), ylim=(0, None), xlabel='epoch', ylabel='val mAP')
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid()
        return to_svg(figure, 'val mAP by epoch, of both sides and each seed')


def _plot_differences(sizes: Sequence[Metric], classes: Sequence[Metric]) -> Markup:
    rows = [*sizes, *classes]
    with drawing(4.6, 0.8 + 0.24 * len(rows)) as (figure, axes):
        axes.axvline(0, color=COLOURS['ink'], linewidth=0.8)
        for y, row in enumerate(rows):
            _plot_interval(axes, y, row.difference, vertical=False)
        if sizes and classes:
            axes.axhline(len(sizes) - 0.5, color=COLOURS['line'], linewidth=1)
        axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        labels = ['all objects' if row.name == 'mAP' else row.label for row in rows]
        labels = [label if len(label) <= 22 else label[:21] + '…' for label in labels]
        # A dollar sign would begin a formula.
        axes.set_yticklabels(labels, parse_math=False)
        axes.tick_params(axis='y', length=0)
        axes.locator_params(axis='x', nbins=5)
        axes.set_xlabel('distilled minus plain')
        axes.grid(axis='x')
        described = ', '.join(f'{row.label} {row.difference}' for row in rows)
        return to_svg(figure, f'difference in mAP: {described}')


def _plot_interval(axes: Axes, at: float, difference: Difference, vertical: bool) -> None:
    """Draw a mean with its interval, in colour where that leaves 0 out."""
    sure = difference.verdict in ('gain', 'loss')
    colour = COLOURS['distilled' if sure else 'ink' if vertical else 'muted']
    order = slice(None, None, 1 if vertical else -1)
    if difference.low is not None:
        ends = (at, at), (difference.low, difference.high)
        axes.plot(*ends[order], color=colour, linewidth=1.8, solid_capstyle='butt')
    axes.plot(*(at, difference.mean)[order], 'o', color=colour, markersize=5)
