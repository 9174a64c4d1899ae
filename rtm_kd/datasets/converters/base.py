import codecs
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.utils import track_iter_progress

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.image_size import EXTENSIONS

from .coco_writer import describe, describe_dropped

ALL = 'all'
_ALIASES = {'training': 'train', 'valid': 'val', 'validation': 'val'}


@dataclass
class Converted:
    """One split as COCO annotations.

    Attributes:
        content (dict): What a COCO file holds.
        image_folder (Path): What its file names are relative to.
        dropped (dict[str, list[str]]): What was left out -> where.
        notes (list[str]): Lines on what else the user may want to know.
        file (Path, optional): The file that holds exactly this already.
    """

    content: dict[str, Any]
    image_folder: Path
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    file: Optional[Path] = None

    @property
    def summary(self) -> list[str]:
        """Lines on what was read, dropped and else found."""
        return [describe(self.content), *self.account]

    @property
    def account(self) -> list[str]:
        """Lines on what was dropped and else found."""
        return [*describe_dropped(self.dropped), *self.notes]


class Annotations:
    """Annotations of one format, in the splits that their files name.

    Attributes:
        format (str): Name of the format.
        path (Path): Where they are.
        splits (list[str]): Of ``'train'``, ``'val'``, ``'test'``; ``['all']`` if the files
            tell no splits apart.
        classes (list[str]): Names of the classes, in the order of their labels.
        missing (dict[str, str]): Split that is named and not there -> what to do about it.
    """

    format: str
    path: Path
    splits: list[str]
    classes: list[str]
    missing: dict[str, str] = {}

    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        """Read a split into COCO annotations.

        Args:
            split (str): One of :attr:`splits`.
            classes (list[str], optional): The classes to take, in the order of their
                labels. Defaults to all.
        """
        raise NotImplementedError

    def split_for(self, use: str) -> Optional[str]:
        """Return the split to use as ``'train'`` or ``'val'``, None if there is none."""
        return next((name for name in (use, ALL) if name in self.splits), None)


def with_progress(files: list[Path]) -> Iterable[Path]:
    """Go through files, and on a terminal show how far, and how long it will take."""
    return track_iter_progress(files, file=sys.stderr) if sys.stderr.isatty() else files


def split_name(name: str) -> Optional[str]:
    """Return ``'train'``, ``'val'`` or ``'test'`` for a file or folder that is called so."""
    name = name.lower()
    name = _ALIASES.get(name, name)
    return name if name in ('train', 'val', 'test') else None


def files_with(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files below a folder that end so, in upper or lower case, in order."""
    found, walked = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above it.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith('.') and os.path.realpath(Path(parent, name)) not in walked
        )
        walked.add(os.path.realpath(parent))
        found += [
            Path(parent, name)
            for name in sorted(names)
            if name.lower().endswith(suffixes) and not name.startswith('.')
        ]
    return found


def images_below(folder: Path) -> list[Path]:
    """Return the images below a folder, in order."""
    return files_with(folder, *EXTENSIONS)


def relative_name(path: Union[str, os.PathLike], folder: Path) -> str:
    """Return a path as COCO names it: relative to the image folder, if it is below it."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if folder in path.parents else path).as_posix()


def subfolder(folder: Path, *names: str) -> Optional[Path]:
    """Return the first of these folders that a folder has, in upper or lower case."""
    found = {child.name.lower(): child for child in sorted(folder.glob('*')) if child.is_dir()}
    return next((found[name] for name in names if name in found), None)


def path_ends(name: str) -> list[str]:
    """Return a path and ever shorter ends of it, as it may be below a folder of this machine.

    Args:
        name (str): Of any machine: ``C:\\mine\\images\\a.jpg``, ``/home/me/images/a.jpg``.
    """
    parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def read_text(path: Path) -> str:
    """Read a text file of names or paths.

    Raises:
        ValueError: If it can't be read as UTF-8, or as the UTF-16 that Windows marks as such.
    """
    try:
        text = path.read_bytes()
        wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return text.decode('utf-16' if wide else 'utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as text in UTF-8 ({error})") from error
