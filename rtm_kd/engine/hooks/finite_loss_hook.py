"""A stop on NaN or Inf, before it reaches a checkpoint."""

import math
import re
from typing import Any, Optional

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from rtm_kd.models.distillers import ConfigurableDistiller
from rtm_kd.registry import HOOKS
from rtm_kd.utils.checkpoint import STUDENT_PREFIX, newest_checkpoint
from rtm_kd.utils.errors import RunError, UsageError, first_few
from rtm_kd.utils.internals import checkpoint_to_load, has_fixed_loss_scale, unwrap_model

# Losses in a row that may be skipped with a fixed loss scale: as many as halve the usual dynamic
# scale, 65536, to below 1.
_SKIPPED_AT_MOST = 17


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a run on NaN or Inf losses or weights, before they reach a checkpoint.

    The error names the losses, the features that a distillation loss compares, the iteration, and
    the checkpoint that ``--resume`` continues from.

    In mixed precision an infinite loss is part of the search for the loss scale: the optimizer
    skips the step, and the run stops only if the scale falls below 1 and the loss is still not
    finite, or to 0, from which it can't rise again.

    In a distributed run the rank that meets the loss exits at once and its launcher ends the
    others, because agreeing first would make each iteration wait.
    """

    # After RuntimeInfoHook, which waits for the losses of every iteration anyway, so reading them
    # here makes a GPU wait no longer; before EMAHook and everything that saves.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._skipped = 0

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # The file may hold nothing but the weights.
        weights = checkpoint.get('state_dict', checkpoint)
        broken = _not_finite(unwrap_model(runner.model), weights)
        if broken:
            raise UsageError(
                f'the checkpoint {checkpoint_to_load(runner)} is of a run that went wrong: '
                f'{broken}; use an earlier one, --resume FILE'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, outputs: Optional[dict] = None, **_: Any
    ) -> None:
        scale = _loss_scale(runner.optim_wrapper)
        if outputs is None or torch.as_tensor(outputs.get('loss', 0.0)).isfinite():
            self._skipped = 0
            if scale == 0:
                raise self._error(
                    runner,
                    batch_idx,
                    'the loss scale of mixed precision has fallen to 0, so the weights no longer '
                    'change: the losses are finite, their gradients are not',
                )
            return
        self._skipped += 1
        if scale is not None:
            fixed = has_fixed_loss_scale(runner.optim_wrapper)
            given_up = self._skipped >= _SKIPPED_AT_MOST if fixed else scale < 1
            if not given_up:
                return
        raise self._error(runner, batch_idx, _fault(unwrap_model(runner.model), outputs))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # A finite loss may have an infinite gradient, which only the next loss would show.
        broken = _not_finite(unwrap_model(runner.model), checkpoint['state_dict'])
        if broken:
            raise self._error(runner, None, f'{broken}, while the losses were finite')

    def _error(self, runner: Runner, batch_idx: Optional[int], fault: str) -> RunError:
        when = f'epoch {runner.epoch + 1}'
        if batch_idx is not None:
            when += f', iteration {batch_idx + 1} of {len(runner.train_dataloader)}'
        try:
            last = newest_checkpoint(runner.work_dir)
        except UsageError:
            last = None
        lower = 'optim_wrapper.optimizer.lr'
        if last is None:
            remedy = f'there is no checkpoint yet; start again with a lower {lower}'
        else:
            # --resume restores the learning rate too.
            remedy = (
                f'the last good checkpoint is {last}, and --resume continues from it; if it fails '
                f'again, start from its weights, load_from={last}, with a lower {lower}'
            )
        remedy += ' or optim_wrapper.clip_grad.max_norm=35'
        if _loss_scale(runner.optim_wrapper) is not None:
            remedy += ', or without mixed precision'
        return RunError(f'{when}: {fault}; stopped before saving it; {remedy}')


def _loss_scale(optim_wrapper: OptimWrapper) -> Optional[float]:
    """Return the loss scale of mixed precision, None if there is no enabled scaler."""
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    return scaler.get_scale() if scaler is not None and scaler.is_enabled() else None


def _fault(model: nn.Module, outputs: dict[str, torch.Tensor]) -> str:
    losses = {name: float(value) for name, value in outputs.items() if 'loss' in name}
    total = losses.pop('loss')
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if not broken:
        return f'the sum of the losses is {total}'
    if len(broken) == len(losses) > 1:
        return (
            f'none of the losses is finite ({", ".join(broken)}), most likely because the previous '
            'step broke the weights'
        )
    return ', '.join(f'{_described(model, name)} is {losses[name]}' for name in broken)


def _described(model: nn.Module, loss: str) -> str:
    """Return the name of a loss, and the features that a distillation loss compares."""
    distiller = getattr(model, 'distiller', None)
    name = loss.removeprefix('distill.')
    if not isinstance(distiller, ConfigurableDistiller) or name not in distiller.distill_losses:
        return loss
    source = distiller.source_of(next(iter(distiller.loss_forward_mappings[name].values())))
    level = re.match(r'"neck\.\w+\.(\d+)', source)
    return f'{loss} (FPN level {level[1]}, {source})' if level else f'{loss} ({source})'


def _not_finite(model: nn.Module, state_dict: dict[str, torch.Tensor]) -> str:
    """Name the weights and running statistics that hold NaN or Inf."""
    # Other buffers may hold an infinity on purpose.
    trained = {name.removeprefix(STUDENT_PREFIX) for name, _ in model.named_parameters()}
    broken = [
        name
        for name, value in state_dict.items()
        if (name.removeprefix(STUDENT_PREFIX) in trained or '.running_' in name)
        and not value.isfinite().all()
    ]
    return f'{first_few(broken, 2)} of its weights are NaN or Inf' if broken else ''
