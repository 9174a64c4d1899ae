"""Self-contained HTML pages."""

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .plots import PALETTE

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
    """Return a page.

    Args:
        template (str): Name of a file in ``templates/``. It extends ``page.html``, the common
            look in light and dark, on desktops and phones.
        **values: What the template asks for; a missing one raises. Text is escaped, what
            :func:`~.plots.to_svg` returns is not.
    """
    return _PAGES.get_template(template).render(**values)


def image_uri(image: np.ndarray) -> str:
    """Return an image, (H, W, 3), RGB in uint8, as a ``data:`` URI."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()
