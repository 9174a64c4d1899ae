"""Preparation of a user's dataset for a config."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from rtm_kd.utils.errors import UsageError, first_few, near_misses

from .converters import open_annotations
from .converters.base import REMEDIES, Annotations, Converted, check_class_names
from .converters.files import relative_name
from .split import split_coco


@dataclass
class DataSource:
    """A dataset, and what of it to use. Paths are relative to it or to the working directory."""

    data_root: str
    train_ann: Optional[str] = None  # file or folder, found in data_root by default
    val_ann: Optional[str] = None
    train_img: Optional[str] = None  # folder, where it is not found automatically
    val_img: Optional[str] = None  # train_img by default
    classes: Optional[list[str]] = None  # in the order of their labels, by default all
    val_fraction: Optional[float] = None  # share of the training images to evaluate on instead
    seed: int = 0  # of this split
    train_on_background: bool = False  # on images without a box as well


@dataclass
class PreparedData:
    """COCO annotations that are ready for a config."""

    # At the top of the config. Where a path is not below the data_root, that is empty.
    values: dict[str, Any]
    class_names: list[str]  # in the order of the labels
    num_train_images: int  # that are trained on
    messages: list[str]  # what was read, dropped and written, for the user
    warnings: list[str]  # what the user should look at


def prepare_data(source: DataSource, out_dir: str) -> PreparedData:
    """Read annotations of any known format, and write those that are not COCO's as COCO's.

    Nothing is written below ``data_root`` unless ``out_dir`` is there.

    Args:
        out_dir (str): Folder for ``train.json`` and ``val.json``, where they have to be
            written.

    Raises:
        ValueError: If something is missing or can't be used, with the remedy.
    """
    root = Path(source.data_root).expanduser()
    train, train_split, val, val_split = _open(source, root)
    names = _choose_classes(train, val, source.classes)

    trained = train.convert(train_split, names)
    background = '' if source.train_on_background else ', which are not trained on'
    messages = [
        f'{train.format} annotations in {train.path}',
        *[f'train: {line}' for line in trained.summary(background)],
    ]
    _check_boxes(trained, 'train', train, names)
    if source.val_fraction is None:
        evaluated = val.convert(val_split, names)
        messages += [f'val: {line}' for line in evaluated.summary()]
    else:
        folder = trained.image_folder
        parts = split_coco(trained.content, folder, source.val_fraction, source.seed)
        trained, evaluated = (Converted(part, folder) for part in parts)
        if 'val' in train.splits:
            messages.append(f'not used, because of --val-fraction: the val split of {train.path}')
        messages.append(f'of these to train on: {trained.describe(background)}')
        messages.append(f'and to evaluate on: {evaluated.describe()}')

    for use, part, whole in (('train', trained, train), ('val', evaluated, val)):
        _check_boxes(part, use, whole, names)
        folders = {str((part.image_folder / i['file_name']).parent) for i in part.content['images']}
        messages.append(f'{use}: images in {first_few(sorted(folders))}')
        if part.file is None:
            part.file = Path(out_dir, f'{use}.json')
            part.write(part.file)
            messages.append(f'written {part.file}')
    paths = [trained.file, trained.image_folder, evaluated.file, evaluated.image_folder]
    names_below = [relative_name(path, root) for path in paths]
    all_below = not any(map(os.path.isabs, names_below))
    stated = names_below if all_below else [path.as_posix() for path in paths]
    values = dict(
        data_root=_with_slash(root) if all_below else '',
        train_ann_file=stated[0],
        train_data_prefix=_with_slash(stated[1]),
        val_ann_file=stated[2],
        val_data_prefix=_with_slash(stated[3]),
        class_names=tuple(names),
        train_on_background=source.train_on_background,
    )
    num_images = len(trained.content['images'])
    if not source.train_on_background:
        num_images = _num_with_boxes(trained.content)
    return PreparedData(values, names, num_images, messages, _warnings(trained, evaluated))


def _open(source: DataSource, root: Path) -> tuple[Annotations, str, Annotations, str]:
    """Return the annotations and the split of them to train on, and those to evaluate on."""
    if not root.is_dir():
        raise UsageError(f'--data-root {source.data_root} is not a directory')
    own = '--val-ann' if source.val_ann else '--val-img' if source.val_img else None
    if own and source.val_fraction is not None:
        raise UsageError(f'{own} and --val-fraction exclude each other; give one of them')
    images = _find(source.train_img, root, is_folder=True)
    train = open_annotations(_find(source.train_ann, root) or root, root, images, source.classes)
    split = train.split_for('train')
    if split is None:
        raise UsageError(
            train.missing.get('train')
            or f'{train.path} has annotations for {" and ".join(train.splits)}, none for training; '
            'name those with --train-ann'
        )
    if own:
        path = _find(source.val_ann, root) or train.path
        images = _find(source.val_img, root, is_folder=True) or images
        val = open_annotations(path, root, images, source.classes)
        # In YOLO the images of a folder are a split; other annotations may be those trained on.
        if source.val_ann or 'val' in val.splits or (val.format == 'YOLO' and path.is_dir()):
            return train, split, val, val.split_for('val') or next(iter(val.splits))
    if source.val_fraction is None and 'val' not in train.splits:
        others = [name for name in train.splits if name not in ('all', split)]
        more = f' (there is {" and ".join(others)})' if others else ''
        fault = train.missing.get('val') or (
            f'{train.path} has no annotations for validation{more}; name some with --val-ann'
        )
        raise UsageError(f'{fault}, or have --val-fraction 0.2 take them from the training images')
    return train, split, train, 'val'


def _find(name: Optional[str], root: Path, is_folder: bool = False) -> Optional[Path]:
    """Return a path that the user gave, relative to the dataset's folder or not."""
    if name is None:
        return None
    places = [root / Path(name).expanduser(), Path(name).expanduser()]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise UsageError(f'there is no {places[0]}, and no {places[1]} either; correct the path')
    if is_folder and not found.is_dir():
        raise UsageError(f'{found} is not a directory; give the folder of the images')
    # Written as the dataset's folder is, by which the converters tell that it is below.
    name = relative_name(found, root)
    return found if os.path.isabs(name) else root / name


def _choose_classes(train: Annotations, val: Annotations, asked: Optional[list[str]]) -> list[str]:
    known = {*train.classes, *val.classes}
    if not asked:
        # VOC has no list of classes: they are the names of the boxes.
        return sorted(known) if train.format == 'VOC' else train.classes
    check_class_names(asked, '--classes')
    for name in asked:
        if name not in known:
            raise UsageError(
                f'--classes: {train.path} has no class "{name}"'
                + (near_misses(name, known) or f'; it has {", ".join(sorted(known))}')
            )
    return list(asked)


def _num_with_boxes(content: dict[str, Any]) -> int:
    return len({a['image_id'] for a in content['annotations'] if not a.get('iscrowd')})


def _check_boxes(part: Converted, use: str, annotations: Annotations, names: list[str]) -> None:
    """Raise unless there is a box, with what was left out and what to do about it."""
    if _num_with_boxes(part.content):
        return
    crowds = len(part.content['annotations'])
    difficult = (
        f' that counts: all {crowds} are marked as difficult (in COCO, as a crowd), which are '
        'neither trained on nor evaluated; take the mark away'
    )
    raise UsageError(
        f'the {use} annotations of {annotations.path} have no box of {names}'
        f'{difficult if crowds else ""} ({"; ".join(part.summary())})'
        + ''.join(f'; {REMEDIES[what]}' for what in part.dropped if what in REMEDIES)
    )


def _warnings(trained: Converted, evaluated: Converted) -> list[str]:
    warnings = []
    files, val_files = (
        {os.path.realpath(part.image_folder / i['file_name']) for i in part.content['images']}
        for part in (trained, evaluated)
    )
    shared = sorted(files & val_files)
    if shared:
        warnings.append(
            f'{len(shared)} of {len(val_files)} validation images are trained on as well, such as '
            f'{shared[0]}: mAP on them says little; --val-fraction 0.2 makes a separate split'
        )
    boxed = {a['category_id'] for a in trained.content['annotations']}
    silent = [c['name'] for c in trained.content['categories'] if c['id'] not in boxed]
    if silent:
        warnings.append(f'no box of {", ".join(silent)} to train on')
    return warnings


def _with_slash(folder: Union[str, Path]) -> str:
    return str(folder).rstrip('/') + '/'
