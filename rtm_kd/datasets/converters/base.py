"""The interface of the formats."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Optional

from .coco_writer import Converted

ALL = 'all'


class Annotations(ABC):
    """Annotations of one format, in the splits that their files name.

    Args:
        path (Path): The file or folder.
        root (Path): Folder of the dataset.
        images (Path, optional): Folder of the images, where it is not found automatically.
        names (list[str], optional): The classes, where the format has only their numbers.

    Attributes:
        format (str): Name of the format.
        splits (dict): ``'train'``, ``'val'`` or ``'test'`` -> its files; ``'all'`` if the files
            don't tell splits apart.
        classes (list[str]): Names of the classes, in the order of their labels.
        missing (dict[str, str]): Split that is named but not there -> what to do about it.

    Raises:
        ValueError: If they can't be read, or two classes have the same name.
    """

    format: str
    splits: dict[str, Any]
    classes: list[str]

    def __init__(
        self,
        path: Path,
        root: Path,
        images: Optional[Path] = None,
        names: Optional[list[str]] = None,
    ) -> None:
        self.path, self.root, self.images, self.names = path, root, images, names
        self.missing: dict[str, str] = {}
        self._read()

    @abstractmethod
    def _read(self) -> None:
        """Find the splits and the classes."""

    @abstractmethod
    def convert(self, split: str, classes: Optional[list[str]] = None) -> Converted:
        """Read a split into COCO annotations.

        Args:
            split (str): One of :attr:`splits`.
            classes (list[str], optional): The classes to use, in the order of their labels.
                Defaults to all.
        """

    def split_for(self, use: str) -> Optional[str]:
        """Return the split to use as ``'train'`` or ``'val'``, None if there is none."""
        return next((name for name in (use, ALL) if name in self.splits), None)
