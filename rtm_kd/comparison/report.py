"""A comparison's summary for the terminal, and as an HTML page."""

from typing import Any, Optional

from markupsafe import Markup
from terminaltables import GithubFlavoredMarkdownTable

from rtm_kd.reports.page import render_page
from rtm_kd.reports.plots import COLOURS, curve, drawing, finish, mark_detach, to_svg

from .arms import ARMS
from .progress import clock
from .statistics import CONFIDENCE
from .summary import interval

_NOTHING = '-'
_SEED_KEYS = ('label', *ARMS, 'difference')
# Classes that a plot shows; of more, those with the largest gains and losses.
_MOST_CLASSES = 30
_METHOD = (
    'Both sides start with the same weights of the student and are given the same images in the '
    'same order, augmented in the same way. They differ in the teacher alone, so the difference is '
    'taken seed by seed. Its interval is the one of the paired t-test.',
    "What counts is the last epoch, the weights that EMA has averaged. Each run's best epoch "
    'would be the highest of several noisy values, chosen on the images that it is reported on: '
    'too high, and more so for the run with more noise.',
)


def terminal_table(summary: dict[str, Any]) -> str:
    """Return the verdict, the tables and the notes for a terminal, in Markdown."""
    header = ['', 'plain', 'distilled', _difference_title(summary), 'teacher']
    rows = [
        [row['label'], *_cells(row)] for row in summary['metrics'] if row['difference'] is not None
    ]
    costs = [[row['label'], *_cost_cells(row)] for row in summary['costs']]
    seeds = [[seed[key] for key in _SEED_KEYS] for seed in _seeds(summary)]
    lines = [
        summary['verdict']['sentence'],
        '',
        _table([header, *rows], right=4),
        '',
        _table([['mAP of each run', 'plain', 'distilled', 'difference'], *seeds], right=3),
        '',
        _table([['mean of the runs', 'plain', 'distilled', 'distilled / plain'], *costs], right=3),
        '',
        *summary['notes'],
    ]
    return '\n'.join(lines).rstrip() + '\n'


def html_page(summary: dict[str, Any]) -> str:
    """Return a page that needs nothing but itself, readable with scripts off."""
    setting, metrics = summary['setting'], summary['metrics']
    groups = {
        group: [_html_row(row) for row in metrics if row['group'] == group]
        for group in ('all', 'size', 'class')
    }
    seeds = _seeds(summary)
    several = len(seeds) > 1
    return render_page(
        'comparison.html',
        name=setting['name'],
        kind=summary['verdict']['kind'],
        verdict=summary['verdict']['sentence'],
        notes=summary['notes'],
        subtitle=_subtitle(setting),
        interval_name=_interval_name() if several else '',
        figures_note=f'COCO metrics on the {setting["evaluated_images"]} {setting["split"]} images'
        + (
            ', mean ± standard deviation over the seeds; in brackets the '
            f'{_interval_name()} of the difference.'
            if several
            else ', of one seed.'
        ),
        class_note='Of twenty such intervals one leaves 0 out by chance alone.' if several else '',
        metrics=groups,
        costs=[
            dict(zip(('label', 'plain', 'distilled', 'ratio'), [row['label'], *_cost_cells(row)]))
            for row in summary['costs']
        ],
        cost_note='The student is the same network on both sides, so it is as fast, and as large '
        'when it is exported. Memory is '
        + ("the GPU's" if setting['gpu'] else 'that of the process without a GPU, code included')
        + '.',
        seeds=seeds,
        plots=_plots(summary),
        method=[*_METHOD, _pairing(summary)],
        setting=_setting_rows(setting),
    )


def _seeds(summary: dict) -> list[dict[str, str]]:
    """Return the mAP of each run, one entry for a seed."""
    row = summary['metrics'][0]
    sides = [row[side]['values'] for side in (*ARMS, 'difference')]
    return [
        dict(zip(_SEED_KEYS, (f'seed {seed}', f'{plain:.3f}', f'{distilled:.3f}', f'{d:+.3f}')))
        for seed, plain, distilled, d in zip(summary['setting']['seeds'], *sides)
    ]


def _subtitle(setting: dict) -> str:
    seeds = len(setting['seeds'])
    return (
        f'{seeds} seed{"s" if seeds > 1 else ""} on each side, {setting["epochs"]} epochs each of '
        f'{setting["train_images"]} images, {setting["iterations"]} iterations'
    )


def _interval_name() -> str:
    return f'{CONFIDENCE:.0%} interval'


def _difference_title(summary: dict) -> str:
    several = len(summary['setting']['seeds']) > 1
    return f'difference [{_interval_name()}]' if several else 'difference'


def _cells(row: dict) -> list[str]:
    return [_mean(row[arm]) for arm in ARMS] + [interval(row['difference']), _value(row['teacher'])]


def _html_row(row: dict) -> dict[str, Any]:
    cells = dict(label=row['label'], group=row['group'], teacher=_value(row['teacher']))
    cells.update({arm: _mean(row[arm]) for arm in ARMS})
    if row['difference'] is None:
        return dict(cells, difference=_NOTHING, interval='')
    difference, _, rest = interval(row['difference']).partition(' ')
    return dict(cells, difference=difference, interval=rest)


def _mean(side: Optional[dict]) -> str:
    if side is None:
        return _NOTHING
    text = f'{side["mean"]:.3f}'
    return text if side['sd'] is None else f'{text} ± {side["sd"]:.3f}'


def _value(value: Optional[float]) -> str:
    return _NOTHING if value is None else f'{value:.3f}'


def _cost_cells(row: dict) -> list[str]:
    return [_quantity(row[arm]['mean'], row['unit']) for arm in ARMS] + [f'{row["ratio"]:.2f}']


def _quantity(value: float, unit: str) -> str:
    if unit == 's':
        return clock(value)
    return f'{value / 1e9:.2f} GB' if value >= 1e9 else f'{value / 1e6:.1f} MB'


def _table(rows: list[list[str]], right: int) -> str:
    table = GithubFlavoredMarkdownTable(rows)
    table.justify_columns = {i: 'right' for i in range(1, right + 1)}
    return table.table


def _pairing(summary: dict) -> str:
    pairing, setting = summary['pairing'], summary['setting']
    unequal = {s: e for s, e in pairing['first_epoch_with_other_images'].items() if e is not None}
    text = "Checked by digests of what the runs had: the student's first weights were the same, "
    if not unequal:
        return text + f'and so were the images of all {setting["epochs"]} epochs.'
    which = ', '.join(f'seed {seed} from epoch {epoch} on' for seed, epoch in unequal.items())
    return text + f'and so were the images, but for {which}.'


def _setting_rows(setting: dict) -> list[tuple[str, Any]]:
    detach = setting['detach_epoch']
    rows = [
        ('config', setting['config']),
        ('changed in it', setting['cfg_options'] or 'nothing'),
        ('seeds', ', '.join(map(str, setting['seeds']))),
        ('budget of a run', f'{setting["epochs"]} epochs, {setting["iterations"]} iterations'),
        ('batch size', setting['batch_size']),
        ('training images', setting['train_images']),
        ('evaluated images', f'{setting["evaluated_images"]} ({setting["split"]})'),
        ('distilled', 'to the end' if detach is None else f'in the first {detach} epochs'),
        ('mixed precision', 'yes' if setting['amp'] else 'no'),
        ('work dir', setting['work_dir']),
        ('machine', '; '.join(setting['machines'])),
    ]
    for versions in setting['versions']:
        rows.append(('versions', ', '.join(f'{k} {v}' for k, v in versions.items())))
    return rows


def _plots(summary: dict) -> list[dict[str, Any]]:
    several = len(summary['setting']['seeds']) > 1
    plots = [
        dict(
            title='Pairs of runs',
            key=True,
            note='A line joins the two runs of a seed.'
            + (' At the right their differences, mean and interval.' if several else ''),
            svg=_plot_pairs(summary['metrics'][0]),
        )
    ]
    if any(points for curves in summary['curves'].values() for points in curves.values()):
        plots.append(
            dict(
                title='While training',
                key=True,
                note='Mean of the seeds, and each of them.' if several else '',
                svg=_plot_curves(summary),
            )
        )
    shown, note = _differences_to_show(summary['metrics'])
    plots.append(
        dict(
            title='Where the difference is',
            key=False,
            note=note,
            svg=_plot_differences(shown),
        )
    )
    return plots


def _plot_pairs(row: dict) -> Markup:
    plain, distilled = row['plain']['values'], row['distilled']['values']
    difference = row['difference']
    with drawing(4.6, 3.0, columns=2, width_ratios=[2, 1]) as (figure, (pairs, differences)):
        for pair in zip(plain, distilled):
            pairs.plot((0, 1), pair, color=COLOURS['muted'], linewidth=1, zorder=1)
        for x, arm in enumerate(ARMS):
            values = row[arm]['values']
            pairs.scatter([x] * len(values), values, s=28, color=COLOURS[arm], zorder=2)
        if row['teacher'] is not None:
            pairs.axhline(row['teacher'], color=COLOURS['teacher'], linestyle='--', linewidth=1.2)
            pairs.annotate(
                'teacher',
                (0.5, row['teacher']),
                xytext=(0, 3),
                textcoords='offset points',
                ha='center',
                color=COLOURS['teacher'],
                fontsize=8,
            )
        pairs.set(xlim=(-0.4, 1.4), xticks=(0, 1))
        pairs.set_xticklabels(ARMS)
        pairs.margins(y=0.12)
        finish(pairs, y='mAP', grid='y')

        differences.axhline(0, color=COLOURS['ink'], linewidth=0.8)
        values = difference['values']
        differences.scatter([-0.25] * len(values), values, s=16, color=COLOURS['muted'])
        _interval(differences, 0.1, difference, vertical=True)
        differences.set(xlim=(-0.7, 0.6), xticks=[])
        differences.margins(y=0.15)
        finish(differences, y='distilled minus plain', grid='y')
        return to_svg(
            figure,
            f'mAP of each seed, plain {_numbers(plain)}, distilled {_numbers(distilled)}; '
            f'difference {interval(difference)}',
        )


def _numbers(values: list[float]) -> str:
    return ' '.join(f'{value:.3f}' for value in values)


def _plot_curves(summary: dict) -> Markup:
    detach = summary['setting']['detach_epoch']
    with drawing(4.6, 3.0) as (figure, axes):
        for arm in ARMS:
            curves = [points for points in summary['curves'][arm].values() if points]
            for points in curves:
                curve(axes, points, COLOURS[arm], faint=len(curves) > 1)
            if len(curves) > 1:
                curve(axes, _mean_curve(curves), COLOURS[arm])
        epochs = summary['setting']['epochs']
        if detach is not None and detach < epochs:
            mark_detach(axes, detach)
        axes.set_xlim(0, epochs * 1.03)
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        finish(axes, x='epoch', y='val mAP')
        return to_svg(figure, 'val mAP by epoch, of both sides and each seed')


def _mean_curve(curves: list[list]) -> list[tuple[float, float]]:
    values = [dict(points) for points in curves]
    common = sorted(set(values[0]).intersection(*values))
    return [(epoch, sum(points[epoch] for points in values) / len(values)) for epoch in common]


def _differences_to_show(metrics: list[dict]) -> tuple[list[dict], str]:
    rows = [row for row in metrics if row['difference'] is not None]
    sizes = [row for row in rows if row['name'] == 'mAP' or row['group'] == 'size']
    classes = [row for row in rows if row['group'] == 'class']
    note = 'Distilled minus plain, in mAP: above all objects and by size, below by class.'
    if rows[0]['difference']['low'] is not None:
        note += ' In colour where the interval leaves 0 out.'
    if len(classes) > _MOST_CLASSES:
        classes.sort(key=lambda row: -row['difference']['mean'])
        half = _MOST_CLASSES // 2
        note += f' Of {len(classes)} classes the first and the last {half}.'
        classes = classes[:half] + classes[-half:]
    return [*sizes, *classes], note


def _plot_differences(rows: list[dict]) -> Markup:
    with drawing(4.6, 0.8 + 0.24 * len(rows)) as (figure, axes):
        axes.axvline(0, color=COLOURS['ink'], linewidth=0.8)
        sizes = sum(row['group'] != 'class' for row in rows)
        for y, row in enumerate(rows):
            _interval(axes, y, row['difference'], vertical=False)
        if 0 < sizes < len(rows):
            axes.axhline(sizes - 0.5, color=COLOURS['line'], linewidth=1)
        axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        # A dollar sign would begin a formula.
        labels = [_short('all objects' if row['name'] == 'mAP' else row['label']) for row in rows]
        axes.set_yticklabels(labels, parse_math=False)
        axes.tick_params(axis='y', length=0)
        axes.locator_params(axis='x', nbins=5)
        finish(axes, x='distilled minus plain', grid='x')
        described = ', '.join(f'{row["label"]} {interval(row["difference"])}' for row in rows)
        return to_svg(figure, f'difference in mAP: {described}')


def _short(label: str) -> str:
    return label if len(label) <= 22 else label[:21] + '…'


def _interval(axes: Any, at: float, difference: dict, vertical: bool) -> None:
    """Draw the mean with its interval, in colour where that leaves 0 out."""
    sure = difference['verdict'] in ('gain', 'loss')
    colour = COLOURS['distilled'] if sure else COLOURS['ink' if vertical else 'muted']
    if difference['low'] is not None:
        ends = (difference['low'], difference['high'])
        line = ((at, at), ends) if vertical else (ends, (at, at))
        axes.plot(*line, color=colour, linewidth=1.8, solid_capstyle='butt')
    mean = difference['mean']
    axes.plot(*((at, mean) if vertical else (mean, at)), 'o', color=colour, markersize=5)
