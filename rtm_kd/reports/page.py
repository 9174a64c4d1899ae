"""HTML pages that need nothing but themselves."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.files import atomic_write

_JPEG_QUALITY = 82
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / 'templates'),
    # Whatever a user named, a class or a folder, is text and not HTML.
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template (str): Name of a file in ``templates/``. It extends ``page.html``, which has
            the look of all of them, in light and in dark, on desktops and on phones.
        **values: What the template asks for; a missing one raises. Text is escaped, what
            :func:`~.plots.to_svg` returns is not.
    """
    return _PAGES.get_template(template).render(**values)


def image_uri(image: np.ndarray) -> str:
    """Return an image as a URI that holds all of it, for ``src`` or ``href``.

    Args:
        image (ndarray): (H, W, 3), RGB in uint8.
    """
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        ValueError: If it can't be written there.
    """
    with _named_errors(path), atomic_write(path) as part:
        part.write_text(page, encoding='utf-8', errors='replace')


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"the page {path} can't be written: {error.strerror}") from error
