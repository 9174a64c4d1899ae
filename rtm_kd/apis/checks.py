"""What is checked before a run: that its data are there, and are what the config says."""

import json
import os
from typing import Optional

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from rtm_kd.utils.errors import UsageError

COCO_REMEDY = (
    'for COCO, see "Getting COCO" in the README; for your own data set data_root, '
    'and the ann_file and data_prefix of the dataloaders'
)


def check_data_files(cfg: Config, *splits: str) -> None:
    """Raise unless annotation file and image folder of every split exist.

    Args:
        cfg (Config): The whole config.
        splits (str): Of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        ValueError: Naming the path that is missing, and how to get COCO.
    """
    for split in splits:
        dataset = _innermost((cfg.get(f'{split}_dataloader') or {}).get('dataset'))
        if not dataset or _draws_itself(dataset):
            continue
        root = dataset.get('data_root') or ''
        ann_file = dataset.get('ann_file')
        if ann_file and not _exists(os.path.join(root, ann_file)):
            raise UsageError(
                f'the {split} annotation file {os.path.join(root, ann_file)} is missing; '
                + COCO_REMEDY
            )
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            evaluated = evaluator.get('ann_file')
            if evaluated and not _exists(evaluated):
                raise UsageError(
                    f'the {split} evaluator reads {evaluated}, which is missing; data_root has to '
                    'end in a slash'
                )
        images = (dataset.get('data_prefix') or {}).get('img')
        if images is not None and not _exists(os.path.join(root, images)):
            raise UsageError(
                f'the {split} image folder {os.path.join(root, images)} is missing; ' + COCO_REMEDY
            )


def check_datasets(runner: Runner, *splits: str) -> None:
    """Raise unless classes of config, annotations and model agree, and there are images.

    Builds the dataloaders, which the runner then uses.

    Raises:
        ValueError: Naming the classes that the annotations lack, or both counts.
    """
    for split in splits:
        loop = f'_{split}_loop'
        if getattr(runner, loop) is None:
            continue
        dataset = getattr(runner, f'{split}_dataloader').dataset
        while hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        ann_file = getattr(dataset, 'ann_file', None)
        if classes and hasattr(dataset, 'cat_ids'):
            if len(dataset.cat_ids) < len(classes):
                _raise_unknown_classes(split, classes, ann_file)
            _check_num_classes(runner, classes)
        if len(dataset) == 0:
            raise UsageError(f'no image of {ann_file} is left for {split} after filtering')


def _raise_unknown_classes(split: str, classes: tuple, ann_file: str) -> None:
    with open(ann_file, encoding='utf-8') as file:
        annotated = [category['name'] for category in json.load(file)['categories']]
    unknown = [name for name in classes if name not in annotated]
    raise UsageError(
        f'the {split} annotations {ann_file} have the categories {annotated}, and not '
        f'{unknown} of the config; write the class names (metainfo) as the annotations do'
    )


def _check_num_classes(runner: Runner, classes: tuple) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    head = getattr(getattr(model, 'student', model), 'bbox_head', None)
    num_classes = getattr(head, 'num_classes', len(classes))
    if num_classes != len(classes):
        raise UsageError(
            f'the model has num_classes={num_classes}, and the data have {len(classes)} classes '
            f'({", ".join(classes[:3])}, ...); set num_classes'
        )


def _innermost(dataset: Optional[dict]) -> Optional[dict]:
    while dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _draws_itself(dataset: dict) -> bool:
    return dataset['type'] == 'rtm_kd.DrawnDataset'


def _exists(path: str) -> bool:
    # A path such as s3://... belongs to a storage backend that only MMEngine knows.
    return '://' in path or os.path.exists(path)
