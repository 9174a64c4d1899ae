"""Checks of a config's values, output folders and data before a run."""

import math
import os
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any, Union

from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from rtm_kd.datasets.coco_format import read_annotations
from rtm_kd.models.distillation import Distillation
from rtm_kd.utils.config import bare_type, evaluators_of, get_value, innermost_dataset
from rtm_kd.utils.errors import UsageError, first_few
from rtm_kd.utils.internals import has_loop, images_per_batch, unwrap_model

from .annotations import checked_annotations
from .images import check_images, name_faulty_images
from .pipelines import shaping_of

COCO_REMEDY = (
    'for COCO, see docs/coco.md; for your own data set data_root, and the ann_file and data_prefix '
    'of the dataloaders'
)
# Values that users change, and that no run can have at times: name, type, smallest value.
_NUMBERS = (
    ('train_cfg.max_epochs', int, 1),
    ('train_cfg.max_iters', int, 1),
    ('train_cfg.val_interval', int, 1),
    *[(f'{split}_dataloader.batch_size', int, 1) for split in ('train', 'val', 'test')],
    *[(f'{split}_dataloader.num_workers', int, 0) for split in ('train', 'val', 'test')],
    ('optim_wrapper.optimizer.lr', Real, 0),
    ('optim_wrapper.accumulative_counts', int, 1),
    ('auto_scale_lr.base_batch_size', int, 1),
)
# In 240 distilled steps students gained nothing, in 560 they gained 8 points (docs/method.md).
_FEW_STEPS = 400
# Types that MMEngine relies on.
_KINDS = {
    **dict.fromkeys(('model', 'train_dataloader', 'optim_wrapper', 'default_hooks'), (dict,)),
    **dict.fromkeys(('randomness', 'env_cfg', 'auto_scale_lr'), (dict,)),
    **dict.fromkeys(('default_scope', 'work_dir', 'load_from', 'log_level'), (str,)),
    'param_scheduler': (dict, list),
    'custom_hooks': (list,),
}


def check_values(cfg: Config) -> None:
    """Raise for values that no run can have, and that MMEngine would fail on later.

    Raises:
        ValueError: With the value and what it has to be.
    """
    if cfg.get('model') is None:
        raise UsageError('the config has no model')
    for name, kinds in _KINDS.items():
        if cfg.get(name) is not None and not isinstance(cfg[name], kinds):
            expected = ' or '.join(kind.__name__ for kind in kinds)
            raise UsageError(f'the config has {name}={cfg[name]!r}, which is not a {expected}')
    for name, kind, least in _NUMBERS:
        value = get_value(cfg, name, least)
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not (is_number and least <= value < math.inf):
            what = 'an integer' if kind is int else 'a number'
            raise UsageError(
                f'the config has {name}={value!r}; it has to be {what} from {least} up'
            )


def check_output_folder(option: str, folder: Union[str, Path]) -> None:
    """Raise unless files can be written below the folder of an option; it need not exist yet.

    Raises:
        ValueError: If a file is in its way, or there is no permission.
    """
    whole = Path(os.path.abspath(folder))
    there = next(place for place in (whole, *whole.parents) if os.path.exists(place))
    if not there.is_dir():
        raise UsageError(f'{there} is not a directory; choose another with {option}')
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f'no permission to write in {there}; choose another with {option}')


def check_data_files(cfg: Config, *splits: str) -> None:
    """Raise unless the annotation file and the image folder of every split exist.

    Raises:
        ValueError: With the path that is missing, and how to get COCO.
    """
    for split in splits:
        dataset = innermost_dataset(get_value(cfg, f'{split}_dataloader.dataset'))
        if not isinstance(dataset, dict) or bare_type(dataset) == 'DrawnDataset':
            continue
        root = dataset.get('data_root') or ''
        _check_exists(f'{split} annotation file', root, dataset.get('ann_file') or None)
        for evaluator in evaluators_of(cfg, split):
            name, remedy = get_value(evaluator, 'ann_file'), 'data_root has to end in a slash'
            _check_exists(f'file of the {split} evaluator', '', name, remedy)
        images = get_value(dataset.get('data_prefix') or {}, 'img')
        _check_exists(f'{split} image folder', root, images)


def _check_exists(what: str, root: Any, name: Any, remedy: str = COCO_REMEDY) -> None:
    if name is None:
        return
    for part in (root, name):
        if not isinstance(part, str):
            raise UsageError(f'the config has {part!r} for the {what}, which is not a path')
    path = os.path.join(root, name)
    # A path such as s3://... belongs to a storage backend that only MMEngine knows.
    if '://' not in path and not os.path.exists(path):
        raise UsageError(f'the {what} {path} is missing; {remedy}')


def check_datasets(runner: Runner, *splits: str) -> None:
    """Raise unless annotations and image files can be used, and classes agree with the model.

    Builds the dataloaders, which the runner then uses. From then on an image that can't be
    read ends the run with its name.

    Raises:
        ValueError: With the fault in an annotation file or its images, the classes that it
            lacks, or both numbers of classes.
    """
    model = unwrap_model(runner.model)
    detector = getattr(model, 'student', model)
    for split in splits:
        if not has_loop(runner, split):
            continue
        _check_image_size(detector, runner, split)
        with checked_annotations(split):
            whole = getattr(runner, f'{split}_dataloader').dataset
        for dataset in innermost_datasets(whole):
            classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
            if classes and hasattr(dataset, 'cat_ids'):
                _check_classes(dataset, split, classes, detector)
            if len(dataset) == 0:
                ann_file = getattr(dataset, 'ann_file', None)
                raise UsageError(
                    f'no image of {ann_file} is left for {split} after filtering; check filter_cfg '
                    'and the class names'
                )
            if isinstance(dataset, BaseDataset):
                _check_boxes(dataset, split)
                check_images(dataset, split)
                name_faulty_images(dataset)


def check_distilled_steps(runner: Runner) -> list[str]:
    """Return a warning if a run, its data built, distils for too few steps to help its student."""
    distillation = Distillation.of(runner.cfg)
    # MMRazor's other algorithms have an architecture as well, and no teacher.
    if distillation is None or distillation.teacher is None:
        return []
    steps = steps_before_detach(runner)
    if steps >= _FEW_STEPS:
        return []
    return [
        f'the run distils for {steps} steps; below about {_FEW_STEPS} connectors have hardly been '
        'learned and a student rarely gains: set a larger max_epochs (docs/method.md)'
    ]


def steps_before_detach(runner: Runner) -> int:
    """Return the steps of a run until its teacher is detached, all if it has none."""
    distillation = Distillation.of(runner.cfg)
    if distillation is None or distillation.detach_epoch is None:
        return runner.max_iters
    return min(runner.max_iters, distillation.detach_epoch * len(runner.train_dataloader))


def _check_image_size(detector: Any, runner: Runner, split: str) -> None:
    """Raise if the levels of MMYOLO's necks, each half as large, would not fit each other."""
    neck = type(getattr(detector, 'neck', None))
    strides = getattr(getattr(detector, 'bbox_head', None), 'featmap_strides', None)
    if not strides or all(base.__name__ != 'BaseYOLONeck' for base in neck.__mro__):
        return
    stride = int(max(strides))
    size = shaping_of(runner.cfg, split).padded
    if size and any(side % stride for side in size):
        raise UsageError(
            f'the {split} pipeline makes images of {size[0]}x{size[1]} pixels, but the model takes '
            f'only multiples of {stride}; change img_scale'
        )


def innermost_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the datasets that wrappers such as RepeatDataset and ConcatDataset are around."""
    parts = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', None)
    if parts is None:
        yield dataset
    for part in parts or ():
        yield from innermost_datasets(part)


def _check_classes(dataset: Any, split: str, classes: tuple, detector: Any) -> None:
    """Raise unless the annotations have all classes, and the model as many."""
    if len(dataset.cat_ids) < len(classes):
        annotated = [c['name'] for c in read_annotations(dataset.ann_file)['categories']]
        unknown = [name for name in classes if name not in annotated]
        raise UsageError(
            f'the {split} annotations {dataset.ann_file} have the categories {annotated}, and not '
            f'{unknown} of the config; write the class names (metainfo) as the annotations do'
        )
    head = getattr(detector, 'bbox_head', None)
    num_classes = getattr(head, 'num_classes', len(classes))
    if num_classes != len(classes):
        raise UsageError(
            f'the model has num_classes={num_classes}, and the data have {len(classes)} classes '
            f'({first_few(classes)}); set num_classes'
        )


def _check_boxes(dataset: BaseDataset, split: str) -> None:
    """Raise if no image has a box: MMDetection would look for one a thousand times."""
    filters = getattr(dataset, 'filter_cfg', None) or {}
    if split == 'test' or (split == 'train' and not filters.get('filter_empty_gt')):
        return
    infos = map(dataset.get_data_info, range(len(dataset)))
    if all(each.get('ignore_flag') for info in infos for each in info.get('instances', [])):
        raise UsageError(
            f'no image of the {split} annotation file {dataset.ann_file} has a box of one of the '
            'classes that is not marked as a crowd'
        )


def check_batch_size(runner: Runner) -> None:
    """Raise a ValueError if there are fewer images to train on than one step takes."""
    if not has_loop(runner, 'train'):
        return
    loader = runner.train_dataloader
    batch_size = images_per_batch(loader)
    processes = dist.get_world_size()
    if len(loader.dataset) < batch_size * processes:
        of = f' of each of {processes} processes' if processes > 1 else ''
        raise UsageError(
            f'a batch has {batch_size} images{of}, and there are {len(loader.dataset)} to train '
            'on; set a smaller train_batch_size_per_gpu'
        )
