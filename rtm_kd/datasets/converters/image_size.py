"""The size of an image as training sees it, from the file's header alone."""

import os
from typing import Union

import mmcv
from PIL import Image

#: What both OpenCV, which training reads with, and Pillow know.
EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_ORIENTATION = 0x0112  # EXIF's tag; from 5 on the image lies on its side
_ON_ITS_SIDE = 5


def image_size(path: Union[str, os.PathLike]) -> tuple[int, int]:
    """Return width and height of an image, in pixels, as LoadImageFromFile gives it.

    That is after the turn that EXIF asks for.

    Raises:
        OSError: If there is no such file, or it is no image.
    """
    try:
        with Image.open(path) as image:
            size, kind = image.size, image.format
            turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
    except OSError:
        raise
    except Exception as error:  # what Pillow raises on a damaged header differs by format
        raise OSError(f'{path} is no image ({error})') from error
    if not turned:
        return size
    if kind in ('JPEG', 'MPO'):
        return size[1], size[0]
    # Pillow and OpenCV differ, by format and version, in whether a size is the turned one.
    height, width = mmcv.imread(path).shape[:2]
    return width, height
