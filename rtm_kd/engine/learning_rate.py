"""The learning rate for another batch size than the recipe's: scaling it, or a warning."""

import logging

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.internals import images_per_batch


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
