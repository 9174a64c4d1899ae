from collections.abc import Iterator
from pathlib import Path

from rtm_kd.utils.errors import printable

from .base import Annotations
from .coco_writer import write_coco


def convert_dataset(annotations: Annotations, out_dir: str) -> Iterator[str]:
    """Write every split of a dataset as ``<split>.json``, in COCO's format.

    Args:
        annotations (Annotations): What to convert.
        out_dir (str): Folder for the files.

    Yields:
        str: Lines on what was read, dropped and written.
    """
    for split in annotations.splits:
        converted = annotations.convert(split)
        path = Path(out_dir, f'{split}.json')
        write_coco(converted.content, path)
        for line in (
            *converted.summary,
            f'written {path}, the image folder (data_prefix) is {converted.image_folder}',
        ):
            yield printable(f'{split}: {line}')
