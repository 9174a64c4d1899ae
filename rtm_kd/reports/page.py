"""Self-contained HTML pages: palette, templates, images and plots."""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Name of a colour -> its values on a light and on a dark page. No two light ones are the same,
#: see :func:`to_svg`.
PALETTE = {
    'ink': ('#1d1d21', '#ececf1'),
    'muted': ('#63636d', '#a0a0ab'),
    'line': ('#dedee4', '#37373f'),
    'paper': ('#ffffff', '#17171a'),
    'panel': ('#f6f6f9', '#212126'),
    'plain': ('#1f77b4', '#6cb6ee'),
    'distilled': ('#c25400', '#ff9a4d'),
    'teacher': ('#777788', '#9b9bab'),
    'third': ('#2a8f5b', '#63cf98'),
    'fourth': ('#8a4fc9', '#bf95f2'),
    'fifth': ('#96690a', '#e0b03f'),
    'sixth': ('#c42d72', '#f27bb0'),
    'fault': ('#d11a2a', '#ff6b76'),
}
#: The light values.
COLOURS = {name: light for name, (light, _) in PALETTE.items()}
_STYLE = {
    'font.size': 9,
    'axes.edgecolor': COLOURS['muted'],
    'axes.labelcolor': COLOURS['ink'],
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.axisbelow': True,
    'grid.color': COLOURS['line'],
    'grid.linewidth': 0.6,
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
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / 'templates'),
    # Names of classes and folders are text, not HTML.
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.globals['palette'] = PALETTE


def render_page(template: str, **values: Any) -> str:
    """Return a page from a file in ``templates/``, with the values that it asks for.

    It extends ``page.html``, the common look in light and dark, on desktops and phones. A missing
    value raises. Text is escaped, what :func:`to_svg` returns is not.
    """
    return _PAGES.get_template(template).render(**values)


def image_uri(image: np.ndarray) -> str:
    """Return an image, (H, W, 3), RGB in uint8, as a ``data:`` URI."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()


class Plot(NamedTuple):
    """A plot on a page, with its heading, a note, and the colours that its key explains."""

    title: str
    note: str
    svg: Markup
    key: Sequence[str] = ()


@contextmanager
def drawing(
    width: float, height: float, columns: int = 1, **subplots: Any
) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure of a size in inches, and its axes: an array of them if there are several.

    An inch is 72 points, text has 9 points. ``subplots`` are arguments of ``Figure.subplots``.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        yield figure, figure.subplots(1, columns, **subplots)


def curve(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    colour: str,
    markers: bool = True,
    faint: bool = False,
) -> None:
    """Draw a line through points (x, y); a faint one is behind the others."""
    style = dict(alpha=0.35, linewidth=1, markersize=2.5) if faint else dict(markersize=4)
    # A single point has no line to be seen by.
    marker = 'o' if markers or len(points) == 1 else ''
    axes.plot(*zip(*points), marker=marker, color=COLOURS[colour], **style)


def mark_event(axes: Axes, position: float, what: str, row: int = 0) -> None:
    """Mark an event at a position of the x axis, in words so many rows below the top."""
    axes.axvline(position, color=COLOURS['muted'], linestyle=':', linewidth=1.2)
    left = position >= sum(axes.get_xlim()) / 2
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


def to_svg(figure: Figure, description: str) -> Markup:
    """Return a figure of :func:`drawing` as an ``<svg>`` with a description for screen readers.

    Its colours are CSS variables of the names in :data:`PALETTE`, ``var(--ink)`` and so on, so
    that it follows the page into dark mode. The page's CSS sets its width.
    """
    file = io.StringIO()
    no_metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(file, format='svg', transparent=True, metadata=no_metadata)
    tag, content = re.search(r'<svg(.*?)>(.*)', file.getvalue(), re.DOTALL).groups()
    # Other figures of the page have the same names; what is referred to has its hash as name.
    content = re.sub('<g id="[^"]*"', '<g', content)
    for name, value in COLOURS.items():
        content = content.replace(value, f'var(--{name})')
    view_box = re.search('viewBox="[^"]*"', tag)[0]
    label = html.escape(description)
    return Markup(f'<svg {view_box} role="img" aria-label="{label}">{content}')
