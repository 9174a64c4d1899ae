"""The size of an image as training sees it, read without decoding the image."""

import os
from typing import Union

import cv2
import mmcv
from PIL import Image

#: Formats that both Pillow and OpenCV, which training uses, can read.
EXTENSIONS = ('.bmp', '.jfif', '.jpe', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
# Bytes near the end of a complete file, or where its header stores its length: offset, and what
# the length leaves out.
_ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
_LENGTHS = {'BMP': (2, 0), 'WEBP': (4, 8)}
_NEAR = 4096  # bytes; cameras append data of their own
_PHOTOS = ('JPEG', 'MPO')
_ORIENTATION = 0x0112  # EXIF's tag
_ON_THEIR_SIDE = range(5, 9)  # of its values


def image_size(path: Union[str, os.PathLike]) -> tuple[int, int]:
    """Return width and height in pixels as LoadImageFromFile gives them, after EXIF's rotation.

    Raises:
        OSError: If the file is missing, is not an image or is cut off.
    """
    try:
        with Image.open(path) as image:
            size, kind = image.size, image.format
            if kind in _PHOTOS:
                # Only EXIF's own: Pillow takes the tag from XMP as well, which OpenCV does not.
                exif = Image.Exif()
                exif.load(image.info.get('exif', b''))
            else:
                exif = image.getexif()
            turned = exif.get(_ORIENTATION) in _ON_THEIR_SIDE
        if not _is_whole(path, kind) and not _can_be_decoded(path):
            raise OSError(f'{path} is cut off')
    except OSError:
        raise
    except Exception as error:  # what Pillow raises on a damaged header differs by format
        raise OSError(f'{path} is not an image ({error})') from error
    if not turned:
        return size
    if kind in _PHOTOS:
        return size[1], size[0]
    # Whether the size is the rotated one differs between Pillow and OpenCV by format and version.
    height, width = mmcv.imread(path).shape[:2]
    return width, height


def _is_whole(path: Union[str, os.PathLike], kind: str) -> bool:
    """Return whether a file is as long as its format says; False if that is unknown."""
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        if kind in _LENGTHS:
            start, head = _LENGTHS[kind]
            return size >= int.from_bytes(file.read(start + 4)[start:], 'little') + head
        file.seek(max(size - _NEAR, 0))
        return kind in _ENDS and _ENDS[kind] in file.read()


def _can_be_decoded(path: Union[str, os.PathLike]) -> bool:
    try:
        return mmcv.imread(os.fspath(path)) is not None
    except cv2.error:
        return False
