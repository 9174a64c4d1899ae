"""Files and folders of a dataset: their names, their splits, and text in them."""

import codecs
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Optional, Union

from mmengine.utils import track_iter_progress

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import EXTENSIONS

_SPLITS = dict.fromkeys(('train', 'training', 'trainset', 'trainval'), 'train')
_SPLITS.update(dict.fromkeys(('val', 'valid', 'validation', 'valset'), 'val'))
_SPLITS.update(dict.fromkeys(('test', 'testing', 'testset'), 'test'))


def with_progress(files: list) -> Iterable:
    """Iterate over files, on a terminal with a progress bar and the time that is left."""
    return track_iter_progress(files, file=sys.stderr) if sys.stderr.isatty() else files


def split_name(name: str) -> Optional[str]:
    """Return ``'train'``, ``'val'`` or ``'test'`` for a file or folder that is called so."""
    return _SPLITS.get(name.lower())


def split_in(name: str) -> Optional[str]:
    """Return the last split in a name, such as that of instances_train2017."""
    return next(filter(None, map(split_name, re.findall('[a-z]+', name.lower())[::-1])), None)


def split_of_parents(file: Path, folder: Path) -> Optional[str]:
    """Return the split that the nearest of a file's folders is called, up to ``folder``."""
    parents = file.relative_to(folder).parts[-2::-1]
    return next(filter(None, map(split_name, parents)), None)


def below(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files below a folder that end so, in upper or lower case, in order."""
    found, walked = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above it, or to one beside it.
        if os.path.realpath(parent) in walked:
            folders.clear()
            continue
        walked.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [
            Path(parent, name)
            for name in sorted(names)
            if name.lower().endswith(suffixes) and not name.startswith('.')
        ]
    return found


def images_below(folder: Path) -> list[Path]:
    """Return the images below a folder, in order."""
    return below(folder, *EXTENSIONS)


def relative_name(path: Union[str, os.PathLike], folder: Path) -> str:
    """Return a path as COCO names it: relative to the image folder, if it is in it."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def child(folder: Path, name: str) -> Path:
    """Return what a folder has in it of a lower-case name, in whatever case it is there."""
    exact = folder / name
    if os.path.exists(exact) or not os.path.isdir(folder):
        return exact
    return next((each for each in sorted(folder.glob('*')) if each.name.lower() == name), exact)


def swap_folder(path: Path, old: str, new: str) -> Path:
    """Return a path with another folder for its last one called ``old``, if it has one."""
    parts = [part.lower() for part in path.parts]
    if old not in parts:
        return path
    place = len(parts) - 1 - parts[::-1].index(old)
    return child(Path(*path.parts[:place]), new).joinpath(*path.parts[place + 1 :])


def path_ends(name: str) -> list[str]:
    """Return a path and its ends, from long to short, one of which a folder here may have.

    It may be of any machine: ``C:\\mine\\images\\a.jpg``, ``/home/me/a.jpg``.
    """
    parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def read_text(path: Path) -> str:
    """Read a text file of names or paths.

    Raises:
        ValueError: If it is neither UTF-8 nor the UTF-16 that Windows marks as such.
    """
    try:
        text = path.read_bytes()
        wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return text.decode('utf-16' if wide else 'utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as text ({error}); save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not empty, without spaces around them."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
