"""From a folder of one's own to what a config needs to know of the data."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from rtm_kd.utils.errors import UsageError, near_misses

from .converters import Annotations, Converted, open_annotations, write_coco
from .converters.coco_writer import REMEDIES, check_class_names, describe
from .split import split_coco


@dataclass
class PreparedData:
    """What a config says of its data.

    Attributes:
        data_root (str): Folder that the other paths are relative to, with a slash at its
            end; empty if they are not all below one.
        train_ann_file, val_ann_file (str): COCO annotations.
        train_data_prefix, val_data_prefix (str): Folders of the images.
        class_names (list[str]): In the order of the labels.
        num_train_images (int): Those that are trained on.
        train_on_background (bool): Whether images without a box are among them.
        messages (list[str]): What was read, dropped and written, for the user.
        warnings (list[str]): What the user should look at.
    """

    data_root: str
    train_ann_file: str
    train_data_prefix: str
    val_ann_file: str
    val_data_prefix: str
    class_names: list[str]
    num_train_images: int
    train_on_background: bool = False
    messages: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare_data(
    data_root: str,
    out_dir: str,
    train_ann: Optional[str] = None,
    val_ann: Optional[str] = None,
    train_img: Optional[str] = None,
    val_img: Optional[str] = None,
    classes: Optional[list[str]] = None,
    val_fraction: Optional[float] = None,
    seed: int = 0,
    train_on_background: bool = False,
) -> PreparedData:
    """Read annotations of any known format, and write COCO's where they are none.

    Nothing is written below ``data_root`` unless ``out_dir`` is there.

    Args:
        data_root (str): Folder of the dataset.
        out_dir (str): Folder for ``train.json`` and ``val.json``, as far as they have to be
            written.
        train_ann (str, optional): Annotations to train on, a file or folder, relative to
            ``data_root`` or to the working directory. Found in ``data_root`` by default.
        val_ann (str, optional): Those to evaluate on.
        train_img (str, optional): Folder of the images, where it is not found by itself.
        val_img (str, optional): The same for evaluation, ``train_img`` by default.
        classes (list[str], optional): Classes to take, in the order of their labels; the
            names of the labels where YOLO's files give none. Defaults to all.
        val_fraction (float, optional): Share of the training images to evaluate on instead;
            see :func:`~.split.split_coco`.
        seed (int): Of this split.
        train_on_background (bool): Train on images without a box as well.

    Raises:
        ValueError: For whatever the user can put right.
    """
    root = Path(data_root).expanduser()
    if not root.is_dir():
        raise UsageError(f'--data-root {data_root} is no folder')
    if val_ann and val_fraction is not None:
        raise UsageError('--val-ann and --val-fraction are two ways to the same; give one')
    train = open_annotations(_find(train_ann, root), root, _folder(train_img, root), classes)
    train_split = train.split_for('train')
    if train_split is None:
        raise UsageError(
            train.missing.get('train')
            or f'{train.path} has annotations for {" and ".join(train.splits)}, none for training; '
            'name those with --train-ann'
        )
    val, val_split = train, 'val'
    if val_ann:
        val_folder = _folder(val_img or train_img, root)
        val = open_annotations(_find(val_ann, root), root, val_folder, classes)
        val_split = val.split_for('val') or val.splits[0]
    elif val_fraction is None and val_split not in train.splits:
        others = [split for split in train.splits if split not in ('all', train_split)]
        if val_split in train.missing:
            raise UsageError(
                f'{train.missing[val_split]}, or have --val-fraction 0.2 take images to evaluate '
                'on from those to train on'
            )
        more = f' (there is {" and ".join(others)})' if others else ''
        raise UsageError(
            f'{train.path} has no annotations for validation{more}; name some with --val-ann, or '
            'have --val-fraction 0.2 take them from the training images'
        )
    names = _choose_classes(train, val, classes)

    trained = train.convert(train_split, names)
    background = '' if train_on_background else ', which are not trained on'
    messages = [f'{train.format} annotations in {train.path}']
    messages.append(f'train: {describe(trained.content, background)}')
    messages += [f'train: {line}' for line in trained.account]
    _check_boxes(trained, 'train', train, names)
    if val_fraction is None:
        evaluated = val.convert(val_split, names)
        messages += [f'val: {line}' for line in evaluated.summary]
    else:
        trained, evaluated = _split(trained, val_fraction, seed)
        if 'val' in train.splits:
            messages.append(f'not used, for --val-fraction: the val split of {train.path}')
        messages.append(f'of these to train on: {describe(trained.content, background)}')
        messages.append(f'and to evaluate on: {describe(evaluated.content)}')

    for use, part, whole in (('train', trained, train), ('val', evaluated, val)):
        _check_boxes(part, use, whole, names)
        if part.file is None:
            part.file = Path(out_dir, f'{use}.json')
            write_coco(part.content, part.file)
            messages.append(f'written {part.file}')
    paths = [trained.file, trained.image_folder, evaluated.file, evaluated.image_folder]
    base, below = _relative(paths, root)
    return PreparedData(
        data_root=base,
        train_ann_file=below[0],
        train_data_prefix=_with_slash(below[1]),
        val_ann_file=below[2],
        val_data_prefix=_with_slash(below[3]),
        class_names=names,
        num_train_images=_num_trained(trained.content, train_on_background),
        train_on_background=train_on_background,
        messages=messages,
        warnings=[*_in_both(trained, evaluated), *_classes_without_boxes(trained)],
    )


def _find(name: Optional[str], root: Path) -> Path:
    if name is None:
        return root
    places = [root / Path(name).expanduser(), Path(name).expanduser()]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise UsageError(f'there is no {places[0]}, and no {places[1]} either')
    return found


def _folder(name: Optional[str], root: Path) -> Optional[Path]:
    if name is None:
        return None
    folder = _find(name, root)
    if not folder.is_dir():
        raise UsageError(f'{folder} is no folder of images')
    return folder


def _choose_classes(train: Annotations, val: Annotations, asked: Optional[list[str]]) -> list[str]:
    if asked:
        check_class_names(asked, '--classes')
        known = {*train.classes, *val.classes}
        for name in asked:
            if name not in known:
                raise UsageError(
                    f'--classes: {train.path} has no class "{name}"'
                    + (near_misses(name, known) or f'; it has {", ".join(sorted(known))}')
                )
        return list(asked)
    if train.format == 'VOC':
        # Here the files have no list of classes: they are what the boxes are called.
        return sorted({*train.classes, *val.classes})
    return train.classes


def _split(whole: Converted, fraction: float, seed: int) -> tuple[Converted, Converted]:
    parts = split_coco(whole.content, whole.image_folder, fraction, seed)
    return Converted(parts[0], whole.image_folder), Converted(parts[1], whole.image_folder)


def _num_trained(content: dict[str, Any], background: bool) -> int:
    boxed = {a['image_id'] for a in content['annotations'] if not a.get('iscrowd')}
    return len(content['images']) if background else len(boxed)


def _check_boxes(part: Converted, use: str, annotations: Annotations, names: list[str]) -> None:
    """Raise unless there is a box, with what was left out and what to do about it."""
    if _num_trained(part.content, background=False):
        return
    crowds = len(part.content['annotations'])
    found = '; '.join(part.summary)
    remedies = [REMEDIES[what] for what in part.dropped if what in REMEDIES]
    raise UsageError(
        f'the {use} annotations of {annotations.path} have no box of {names}'
        + (
            f' that counts: all {crowds} are marked as difficult (in COCO, as a crowd), which are '
            'neither trained on nor evaluated; take the mark away'
            if crowds
            else ''
        )
        + f' ({found})'
        + ''.join(f'; {remedy}' for remedy in remedies)
    )


def _classes_without_boxes(part: Converted) -> list[str]:
    boxed = {a['category_id'] for a in part.content['annotations']}
    silent = [c['name'] for c in part.content['categories'] if c['id'] not in boxed]
    return [f'no box of {", ".join(silent)} to train on'] if silent else []


def _in_both(trained: Converted, evaluated: Converted) -> list[str]:
    files = [
        {
            os.path.realpath(part.image_folder / image['file_name'])
            for image in part.content['images']
        }
        for part in (trained, evaluated)
    ]
    shared = sorted(files[0] & files[1])
    if not shared:
        return []
    return [
        f'{len(shared)} of {len(files[1])} validation images are trained on as well, such as '
        f'{shared[0]}: mAP on them says little; --val-fraction 0.2 makes a split of its own'
    ]


def _relative(paths: list[Path], root: Path) -> tuple[str, list[str]]:
    """Return data_root and the paths relative to it, if they are all below it."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    top = Path(os.path.abspath(root))
    if all(path == top or top in path.parents for path in whole):
        return _with_slash(root), [path.relative_to(top).as_posix() for path in whole]
    return '', [path.as_posix() for path in paths]


def _with_slash(folder: Union[str, Path]) -> str:
    return str(folder).rstrip('/') + '/'
