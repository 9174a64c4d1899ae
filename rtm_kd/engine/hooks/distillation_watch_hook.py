"""A warning when distillation starts to hurt."""

import functools
from typing import Optional

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from rtm_kd.registry import HOOKS
from rtm_kd.utils.internals import unwrap_model

# Runs that distillation did not harm had at most 2.5, those that it harmed 4.3 and 7.3.
_TOO_FAR = 3.0


@HOOKS.register_module()
class DistillationWatchHook(Hook):
    r"""Log at each evaluation how far the student's features are from those in training.

    For each batch norm after a recorded convolution that is, averaged over channels, positions and
    images,

    .. math:: \overline{(z - \mu)^2 / (\sigma^2 + \epsilon)}

    with the running statistics of the norm: 1 if evaluation is like training, and a warning above
    3. In training the statistics of the batch scale very large features down. In evaluation they
    grow from layer to layer, until the coarse levels of the head detect objects that are not there:
    the losses fall, and mAP stays behind.

    In a distributed run the images are those of the first process.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._shifts: dict[str, list[float]] = {}
        self._handles: list = []

    def before_val_epoch(self, runner: Runner) -> None:
        self._remove()
        model = unwrap_model(runner.model)
        # MMRazor's distillers have no student_sources.
        sources = getattr(getattr(model, 'distiller', None), 'student_sources', {})
        for name, source in sources.items():
            norm = _norm_after(model.student, source)
            if norm is not None:
                measure = functools.partial(self._measure, name)
                self._handles.append(norm.register_forward_pre_hook(measure))

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        shifts = {name: sum(values) / len(values) for name, values in self._shifts.items()}
        self._remove()
        if not shifts:
            return
        listed = ', '.join(f'{name} {shift:.2g}' for name, shift in shifts.items())
        runner.logger.info(f'feature shift in evaluation (1: as in training): {listed}')
        far = [name for name, shift in shifts.items() if not shift <= _TOO_FAR]
        if far:
            runner.logger.warning(
                f'the features of {", ".join(far)} are much larger in evaluation than in training, '
                'so these levels may detect objects that are not there; let EMAHook average fewer '
                'steps (a larger momentum), train with larger images, or give the losses of these '
                'levels loss_weight=0.0'
            )

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._shifts = [], {}

    @torch.no_grad()
    def _measure(self, name: str, norm: nn.Module, inputs: tuple) -> None:
        z = F.batch_norm(inputs[0].float(), norm.running_mean, norm.running_var, eps=norm.eps)
        self._shifts.setdefault(name, []).append(z.square().mean().item())


def _norm_after(model: nn.Module, source: str) -> Optional[nn.Module]:
    """Return the batch norm with running statistics after a recorded convolution, if it has one."""
    parent, _, child = source.rpartition('.')
    module = model.get_submodule(parent if child == 'conv' else source)
    if isinstance(module, ConvModule) and module.with_norm:
        norm = module.norm
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
            return norm
    return None
