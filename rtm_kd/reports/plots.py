"""Plots in one look, for a file or for the middle of an HTML page.

A figure is made in :func:`drawing`, so that all of them have the same fonts and colours::

    with drawing(4.4, 2.8) as (figure, axes):
        curve(axes, [(1, 0.1), (2, 0.2)], COLOURS['plain'], label='plain student')
        mark_detach(axes, 1)
        finish(axes, x='epoch', y='val mAP')
        svg = to_svg(figure, 'val mAP by epoch')
"""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: What a colour is for -> its value on white. A page may put others in their place, see
#: :func:`to_svg`; no two are the same, nor the same as one that matplotlib uses by itself.
COLOURS = {
    'ink': '#1d1d21',
    'muted': '#75757f',
    'line': '#dedee4',
    'plain': '#1f77b4',
    'distilled': '#d95f02',
    'teacher': '#777788',
    'third': '#2a8f5b',
    'fourth': '#8a4fc9',
    'fifth': '#b07c08',
    'sixth': '#c42d72',
    'fault': '#d11a2a',
}
_STYLE = {
    'font.family': ['sans-serif'],
    'font.size': 9,
    'axes.edgecolor': COLOURS['muted'],
    'axes.labelcolor': COLOURS['ink'],
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlesize': 9,
    'axes.titlecolor': COLOURS['ink'],
    'grid.color': COLOURS['line'],
    'grid.linewidth': 0.6,
    'legend.fontsize': 8,
    'legend.frameon': False,
    'lines.linewidth': 1.6,
    'text.color': COLOURS['ink'],
    'xtick.color': COLOURS['muted'],
    'ytick.color': COLOURS['muted'],
    'xtick.labelcolor': COLOURS['ink'],
    'ytick.labelcolor': COLOURS['ink'],
    # Text stays text: it can be searched, and the browser draws it in the page's font.
    'svg.fonttype': 'none',
    # The same figure gives the same file.
    'svg.hashsalt': 'rtm_kd',
}


@contextmanager
def drawing(
    width: float, height: float, columns: int = 1, **subplots: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure and its axes, to be drawn and saved in this context.

    Args:
        width, height (float): Of the figure, in inches of 72 points; text has 9 points.
        columns (int): How many axes it has, side by side.
        **subplots: Further arguments of matplotlib's ``Figure.subplots``.

    Yields:
        tuple[Figure, Axes]: An array of axes, if there are several columns.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        yield figure, figure.subplots(1, columns, **subplots)


def curve(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    colour: str,
    label: Optional[str] = None,
    markers: bool = True,
    faint: bool = False,
) -> None:
    """Draw a line through points (x, y); a faint one stands behind the others."""
    style = dict(alpha=0.35, linewidth=1, markersize=2.5) if faint else dict(markersize=4)
    # A point alone has no line to be seen by.
    marker = 'o' if markers or len(points) == 1 else ''
    axes.plot(*zip(*points), marker=marker, color=colour, label=label, **style)


def mark_detach(axes: Axes, epoch: float) -> None:
    """Mark when the teacher was detached, ``epoch`` epochs after the beginning."""
    mark_event(axes, epoch, 'teacher detached')


def mark_event(axes: Axes, position: float, what: str, row: int = 0) -> None:
    """Mark what happened at a position of the x axis, in words so many rows below the top."""
    axes.axvline(position, color=COLOURS['muted'], linestyle=':', linewidth=1.2)
    low, high = axes.get_xlim()
    left = position >= (low + high) / 2
    words = axes.annotate(
        what,
        (position, 1),
        xycoords=('data', 'axes fraction'),
        xytext=(-4 if left else 4, -9 * row),
        textcoords='offset points',
        ha='right' if left else 'left',
        va='top',
        fontsize=7.5,
        color=COLOURS['muted'],
    )
    # Long words must not make the plot narrower.
    words.set_in_layout(False)


def mark_faults(axes: Axes, positions: Sequence[float]) -> None:
    """Mark where a value was infinite or no number, at the lower edge."""
    axes.plot(
        positions,
        [0.03] * len(positions),
        transform=axes.get_xaxis_transform(),
        linestyle='',
        marker='x',
        markersize=5,
        color=COLOURS['fault'],
    )


def finish(
    axes: Axes, title: str = '', x: str = '', y: str = '', grid: str = 'both', legend: bool = False
) -> None:
    """Put title, labels, grid and, if there is more than one thing to tell apart, a legend."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.set_axisbelow(True)
    axes.grid(axis=grid)
    if legend:
        axes.legend()


def to_svg(figure: Figure, description: str) -> Markup:
    """Return a figure as an ``<svg>`` element for an HTML page.

    It is as wide as the page lets it be. Its colours are CSS variables of the names in
    :data:`COLOURS`, ``var(--ink)`` and so on, which the page sets, for dark screens too.

    Args:
        figure (Figure): As :func:`drawing` gives it.
        description (str): What it shows, for those who can't see it.
    """
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
    text = file.getvalue()
    view_box = re.search(r'viewBox="[^"]*"', text)[0]
    text = text[text.index('>', text.index('<svg')) + 1 :]
    # Of several figures on a page each would bring the same names and the same style.
    text = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>', '', text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', '<g', text).replace('xlink:href', 'href')
    text = f'<svg {view_box} role="img" aria-label="{html.escape(description)}">{text}'
    for name, value in COLOURS.items():
        text = text.replace(value, f'var(--{name})')
    return Markup(text)
