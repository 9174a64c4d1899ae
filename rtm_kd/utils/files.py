import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, and put what was written in the place of a file.

    A kill leaves the old file or the new one; an error or Ctrl-C leaves nothing else, either.

    Args:
        path (Path): The file. Its folder must exist.

    Yields:
        Path: Beside it.
    """
    part = path.with_name(path.name + '.part')
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
