"""Setting up a run: work dir, mixed precision, learning rate, runner, logging, cleaning up."""

import copy
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional
from uuid import uuid4

import pycocotools.coco
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner
from torch import Tensor

from rtm_kd.checks.config import check_batch_size, check_datasets, check_output_folder
from rtm_kd.models.distillation import Distillation
from rtm_kd.startup import process_rank
from rtm_kd.utils.build_errors import explain_build_errors
from rtm_kd.utils.checkpoint import accept_distilled_weights, load_detector
from rtm_kd.utils.config import bare_type
from rtm_kd.utils.errors import RunError, UsageError
from rtm_kd.utils.files import locked
from rtm_kd.utils.internals import images_per_batch, unwrap_model

# A runner would load the config's load_from over the weights that are to be tested.
_NO_START = dict(load_from=None, resume=False)


def set_work_dir(cfg: Config, config: str, work_dir: Optional[str]) -> None:
    """Set ``cfg.work_dir``: to the argument, else leave the config's own, else by its name.

    Raises:
        ValueError: If nothing can be written there.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(config).stem)
    check_output_folder('--work-dir', cfg.work_dir)


def enable_amp(cfg: Config) -> None:
    """Use a mixed-precision optimizer wrapper: MMEngine's float16 on a GPU, our bfloat16 on a CPU.

    Raises:
        ValueError: If the config has another kind of optimizer wrapper.
    """
    wrapper = cfg.optim_wrapper
    kind = bare_type(wrapper) or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CpuAmpOptimWrapper'):
        raise UsageError(f'--amp needs optim_wrapper.type="OptimWrapper", got "{kind}"')
    if get_device() == 'cpu':
        wrapper.type = 'rtm_kd.CpuAmpOptimWrapper'
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)
    elif kind != 'AmpOptimWrapper':
        wrapper.type = 'AmpOptimWrapper'
        wrapper.loss_scale = 'dynamic'


def enable_auto_scale_lr(cfg: Config) -> None:
    """Let MMEngine scale the learning rate by the images of a step, as MMDetection does.

    Raises:
        ValueError: If the config does not give the batch size of its learning rate, or of a
            process.
    """
    if (cfg.get('auto_scale_lr') or {}).get('base_batch_size') is None:
        raise UsageError(
            '--auto-scale-lr: the config does not give the images a step that its learning rate is '
            'for; add auto_scale_lr=dict(base_batch_size=...)'
        )
    if 'batch_size' not in (cfg.get('train_dataloader') or {}):
        raise UsageError('--auto-scale-lr: the config has no train_dataloader.batch_size')
    cfg.auto_scale_lr.enable = True


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config, which is not changed, under a unique name.

    MMEngine shares loggers, message hubs and visualizers of one name. It names them after the
    config and the second, and visualizers alike, so a run could write into the log and folder of
    another run of this process.
    """
    cfg = copy.deepcopy(cfg)
    name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    cfg.experiment_name = f'{name}_{uuid4().hex[:8]}'
    if isinstance(cfg.get('visualizer'), dict):
        cfg.visualizer.name = cfg.experiment_name
    runner = Runner.from_cfg(cfg)
    if Distillation.of(cfg) is None:
        unwrap_model(runner.model)._register_load_state_dict_pre_hook(accept_distilled_weights)
    return runner


def check_learning_rate(runner: Runner, chosen: bool = False) -> None:
    """Warn if the learning rate is for another batch size and will not be scaled.

    A resumed run is not scaled either: it takes the learning rate from its checkpoint.

    Args:
        runner (Runner): With its training data built. Its ``auto_scale_lr`` is corrected for
            accumulated batches, which MMEngine ignores.
        chosen (bool): Whether the user has set the learning rate for this run: no warning.
    """
    cfg = runner.cfg
    base = (runner.auto_scale_lr or {}).get('base_batch_size')
    if base is None or not cfg.get('train_dataloader'):
        return
    if cfg.get('resume'):
        runner.auto_scale_lr = None
        return
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    if runner.auto_scale_lr.get('enable'):
        runner.auto_scale_lr = dict(enable=True, base_batch_size=base / accumulated)
        return
    own = images_per_batch(runner.train_dataloader) * runner.world_size * accumulated
    if chosen or own == base:
        return
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr')
    option = 'base_lr' if 'base_lr' in cfg else 'optim_wrapper.optimizer.lr'
    print_log(
        f'batch of {own} instead of {base}: the learning rate{"" if lr is None else f", {lr:g},"} '
        f'is for auto_scale_lr.base_batch_size={base} images a step; --auto-scale-lr multiplies it '
        f'by {own / base:g}' + ('' if lr is None else f', or set {option}={lr * own / base:.3g}'),
        'current',
        logging.WARNING,
    )


def check_training_data(runner: Runner) -> None:
    """Raise unless a runner's training and validation data can be used."""
    check_datasets(runner, 'train', 'val')
    check_batch_size(runner)


def build_test_runner(cfg: Config, state_dict: dict[str, Tensor], checkpoint: str) -> Runner:
    """Return a runner that is ready to test a detector with some weights.

    ``checkpoint`` is their path or URL, for messages. The config loses its own start.

    Raises:
        ValueError: If the model can't be built, or the data or the weights don't fit it.
    """
    with remove_new_work_dir_on_error(cfg.work_dir), explain_build_errors():
        cfg.update(_NO_START)
        runner = build_runner(cfg)
        check_datasets(runner, 'test')
        model = unwrap_model(runner.model)
        # Test-time augmentation wraps the model in another one.
        load_detector(getattr(model, 'module', model), state_dict, checkpoint)
    return runner


def testing_config(cfg: Config, split: str) -> Config:
    """Return a config that tests on the images of a split, ``'val'`` or ``'test'``, and no more."""
    cfg = copy.deepcopy(cfg)
    for part in ('dataloader', 'evaluator'):
        cfg[f'test_{part}'] = cfg[f'{split}_{part}']
    cfg.update(_NO_START, test_cfg=dict(type='TestLoop'))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'visualizer'):
        cfg[key] = None
    for part in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'val_{part}'] = None
    # Hooks are for training only; RunRecordHook would write a record.
    cfg.custom_hooks = []
    return cfg


def temporary_run_config(cfg: Config, folder: str) -> Config:
    """Return a config whose run writes into this folder only, and no log."""
    cfg = copy.deepcopy(cfg)
    cfg.update(work_dir=folder, log_level='ERROR')
    # MMEngine looks for one in MMYOLO first, and warns that there is none.
    cfg.log_processor = dict(type='LogProcessor', _scope_='mmengine')
    if isinstance(cfg.get('visualizer'), dict):
        cfg.visualizer.vis_backends = None
    return cfg


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress messages below warnings, such as those about annotations."""
    logging.disable(logging.INFO)
    # It prints what it reads. Redirecting stdout would also catch loggers.
    pycocotools.coco.print = lambda *args: None
    try:
        yield
    finally:
        del pycocotools.coco.print
        logging.disable(logging.NOTSET)
        for handler in MMLogger.get_current_instance().handlers:
            handler.flush()


@contextmanager
def lock_work_dir(work_dir: str) -> Iterator[None]:
    """Keep other runs out of a work dir; in a distributed run rank 0 holds the lock."""
    if process_rank() != '0':
        yield
        return
    os.makedirs(work_dir, exist_ok=True)
    refusal = f'another run is using {work_dir}; wait for it, or give another --work-dir'
    with locked(Path(work_dir), refusal):
        yield


@contextmanager
def remove_new_work_dir_on_error(work_dir: str) -> Iterator[None]:
    """Remove the work dir of a run that could not start, unless it existed before."""
    existed = os.path.exists(work_dir)
    try:
        yield
    except UsageError as error:
        begun = isinstance(error, RunError) or any(Path(work_dir).glob('*.pth'))
        if not existed and not begun:
            shutil.rmtree(work_dir, ignore_errors=True)
        raise


@contextmanager
def log_run_errors(runner: Runner) -> Iterator[None]:
    """Write the error that ends a run into its log, from any rank."""
    try:
        yield
    except RunError as error:
        runner.logger.error(str(error))
        raise
