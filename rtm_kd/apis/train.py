import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from mmengine import dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import Runner

from rtm_kd.engine import (
    CheckRanksHook,
    DistillationWatchHook,
    FiniteLossHook,
    SaveOnTerminationHook,
)
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import newest_checkpoint, read_checkpoint, save_detector
from rtm_kd.utils.errors import RunError, name_what_can_not_be_built, process_rank
from rtm_kd.utils.files import locked

from .checks import (
    check_batch_size,
    check_data_files,
    check_datasets,
    check_output_folder,
    check_values,
)
from .learning_rate import check_learning_rate, enable_auto_scale_lr
from .pipelines import check_pipelines
from .resuming import check_fits, check_resumable
from .runner import build_runner

#: What a run with ``save_best`` leaves: the weights of its best epoch, as a plain detector.
BEST = 'best.pth'
# With one of them the learning rate is chosen for the batch of this run.
_LR_OPTIONS = {'base_lr', 'optim_wrapper.optimizer.lr'}


def train(
    config: str,
    work_dir: Optional[str] = None,
    amp: bool = False,
    resume: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
    launcher: str = 'none',
    auto_scale_lr: bool = False,
) -> Runner:
    """Check a config, then train what it describes.

    Args:
        config (str): Path of the config.
        work_dir (str, optional): Defaults to the config's own, else to
            ``work_dirs/<name of the config>``.
        amp (bool): Automatic mixed precision: float16 on a GPU, bfloat16 on a CPU.
        resume (str, optional): Checkpoint to go on from, or ``'auto'`` for the newest one
            in the work dir that can be read.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        auto_scale_lr (bool): Multiply the learning rate by the images of a step over
            ``auto_scale_lr.base_batch_size`` of the config.

    Returns:
        Runner: The runner, when it is done. Where the config has ``save_best``, the weights of
        the best epoch are in ``best.pth`` in the work dir, of a distillation the student's.

    Raises:
        ValueError: For whatever the user can put right, before the first image is read; a
            work dir that this call made is gone again. Later, as a ``RunError``, for losses
            that are not finite any more and images that can't be read; the work dir stays.
    """
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    set_work_dir(cfg, config, work_dir)
    cfg.launcher = launcher
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if resume == 'auto':
        newest = newest_checkpoint(cfg.work_dir)
        cfg.resume = newest is not None
        # Before its first checkpoint a run begins as its config says.
        cfg.load_from = newest or cfg.get('load_from')
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    content = None
    if cfg.get('load_from') and (cfg.get('resume') or '://' not in cfg.load_from):
        # What can't be read is found here instead of after the datasets are built.
        content = read_checkpoint(cfg.load_from)
    if cfg.get('resume') and content is not None:
        check_resumable(content, cfg.load_from, cfg)
    check_data_files(cfg, 'train', 'val')
    folder = cfg.work_dir
    with no_work_dir_on_usage_error(folder), _alone(folder), name_what_can_not_be_built():
        runner = build_runner(cfg)
        if cfg.get('resume') and content is not None:
            check_fits(content, cfg.load_from, runner)
        # It would take memory as long as the run lasts.
        del content
        check_datasets(runner, 'train', 'val')
        check_batch_size(runner)
        check_learning_rate(runner, chosen=bool(_LR_OPTIONS & {*(cfg_options or {})}))
        for warning in check_pipelines(cfg):
            print_log(warning, 'current', logging.WARNING)
        runner.register_hook(FiniteLossHook())
        runner.register_hook(CheckRanksHook())
        runner.register_hook(SaveOnTerminationHook())
        if 'architecture' in cfg.model:
            runner.register_hook(DistillationWatchHook())
        with run_errors_in_log(runner):
            runner.train()
        _save_best_detector(runner)
    return runner


@contextmanager
def _alone(work_dir: str) -> Iterator[None]:
    """Keep other runs out of a work dir: of a distributed run the first process does."""
    if process_rank() != '0':
        yield
        return
    os.makedirs(work_dir, exist_ok=True)
    refusal = f'another run is at work in {work_dir}; wait for it, or give another --work-dir'
    with locked(Path(work_dir), refusal):
        yield


def _save_best_detector(runner: Runner) -> None:
    best = runner.message_hub.runtime_info.get('best_ckpt')
    if best and os.path.isfile(best) and dist.is_main_process():
        save_detector(read_checkpoint(best), Path(runner.work_dir, BEST))


def set_work_dir(cfg: Config, config: str, work_dir: Optional[str]) -> None:
    """Set ``cfg.work_dir``: the argument, else the config's own, else from its name.

    Raises:
        ValueError: If nothing can be written there.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(config).stem)
    check_output_folder('--work-dir', cfg.work_dir)


def enable_amp(cfg: Config) -> None:
    """Turn the optimizer wrapper into its mixed-precision twin.

    On a GPU that is MMEngine's, in float16 with a scaler; on a CPU ours, in bfloat16.

    Raises:
        ValueError: If it is another kind of optimizer wrapper.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp needs optim_wrapper.type="OptimWrapper", got "{kind}"')
    if get_device() == 'cpu':
        wrapper.type = 'rtm_kd.CpuAmpOptimWrapper'
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)
    elif kind == 'OptimWrapper':
        wrapper.type = 'AmpOptimWrapper'
        wrapper.loss_scale = 'dynamic'


@contextmanager
def no_work_dir_on_usage_error(work_dir: str) -> Iterator[None]:
    """Leave no work dir behind a run that could not begin, if it was not there before."""
    existed = os.path.exists(work_dir)
    try:
        yield
    except UsageError as error:
        begun = isinstance(error, RunError) or any(Path(work_dir).glob('*.pth'))
        if not existed and not begun:
            shutil.rmtree(work_dir, ignore_errors=True)
        raise


@contextmanager
def run_errors_in_log(runner: Runner) -> Iterator[None]:
    """Log what ends a run: in its file, and on the terminal whichever process it is."""
    try:
        yield
    except RunError as error:
        runner.logger.error(str(error))
        raise
