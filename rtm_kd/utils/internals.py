"""Accessors for the private parts of OpenMMLab's packages that rtm_kd needs."""

from typing import Optional

from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import ImgDataPreprocessor, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from pycocotools.coco import COCO
from torch import nn
from torch.utils.data import DataLoader


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel or another wrapper, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def is_resuming(runner: Runner) -> bool:
    """Return whether a run resumes from a checkpoint."""
    return runner._resume


def checkpoint_to_load(runner: Runner) -> Optional[str]:
    """Return the checkpoint that a run starts or resumes from, None if none was given."""
    return runner._load_from


def has_loop(runner: Runner, split: str) -> bool:
    """Return whether a run has a ``'train'``, ``'val'`` or ``'test'`` loop, built or not."""
    return getattr(runner, f'_{split}_loop') is not None


def built_loops(runner: Runner) -> list[BaseLoop]:
    """Return the training and validation loops of a run that have been built."""
    return [x for x in (runner._train_loop, runner._val_loop) if isinstance(x, BaseLoop)]


def images_per_batch(loader: DataLoader) -> int:
    """Return the batch size of one process; with a batch sampler torch has it only there."""
    return loader.batch_size or loader.batch_sampler.batch_size


def build_training(runner: Runner) -> None:
    """Build the training loop and optimizer of a run, as ``runner.train()`` does."""
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.max_iters)


def forget_scalar(message_hub: MessageHub, name: str) -> None:
    """Remove a logged value from a message hub, also from what it expects of a resumed run."""
    message_hub.log_scalars.pop(name)
    message_hub._resumed_keys.pop(name, None)


def has_fixed_loss_scale(optim_wrapper: OptimWrapper) -> bool:
    """Return whether the loss scale of mixed precision is a fixed number."""
    return getattr(optim_wrapper, '_scale_update_param', None) is not None


def set_palette(dataset: BaseDataset, palette: list) -> None:
    """Set the colours of a dataset's classes; its public ``metainfo`` is a copy."""
    dataset._metainfo['palette'] = palette


def ground_truth_of(metric: BaseMetric) -> COCO:
    """Return the annotations that a CocoMetric compares with, after it has evaluated."""
    return metric._coco_api


def swaps_channels(preprocessor: ImgDataPreprocessor) -> bool:
    """Return whether a data preprocessor swaps BGR and RGB."""
    return preprocessor._channel_conversion


def normalises(preprocessor: ImgDataPreprocessor) -> bool:
    """Return whether a data preprocessor normalises by mean and standard deviation."""
    return preprocessor._enable_normalize
