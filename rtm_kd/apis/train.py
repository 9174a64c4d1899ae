import logging
import os
from pathlib import Path
from typing import Any, Optional

from mmengine import dist
from mmengine.logging import print_log
from mmengine.runner import Runner

from rtm_kd.checks.config import (
    check_batch_size,
    check_data_files,
    check_datasets,
    check_values,
)
from rtm_kd.checks.pipelines import check_pipelines
from rtm_kd.checks.resuming import check_fits, check_resumable
from rtm_kd.engine import (
    CheckRanksHook,
    DistillationWatchHook,
    FiniteLossHook,
    LoadStudentHook,
    SaveOnTerminationHook,
)
from rtm_kd.engine.learning_rate import check_learning_rate, enable_auto_scale_lr
from rtm_kd.engine.runs import (
    build_runner,
    enable_amp,
    lock_work_dir,
    log_run_errors,
    remove_new_work_dir_on_error,
    set_work_dir,
)
from rtm_kd.models.distillation import Distillation
from rtm_kd.utils import load_config
from rtm_kd.utils.checkpoint import newest_checkpoint, read_checkpoint, save_detector
from rtm_kd.utils.errors import explain_build_errors

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
    with remove_new_work_dir_on_error(folder), lock_work_dir(folder), explain_build_errors():
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
        runner.register_hook(LoadStudentHook())
        runner.register_hook(FiniteLossHook())
        runner.register_hook(CheckRanksHook())
        runner.register_hook(SaveOnTerminationHook())
        if Distillation.of(cfg) is not None:
            runner.register_hook(DistillationWatchHook())
        with log_run_errors(runner):
            runner.train()
        _save_best_detector(runner)
    return runner


def _save_best_detector(runner: Runner) -> None:
    best = runner.message_hub.runtime_info.get('best_ckpt')
    if best and os.path.isfile(best) and dist.is_main_process():
        save_detector(read_checkpoint(best), Path(runner.work_dir, BEST))
