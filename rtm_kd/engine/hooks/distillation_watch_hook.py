import logging
from typing import Any, Optional

import torch
from mmcv.cnn import ConvModule
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from rtm_kd.registry import HOOKS
from rtm_kd.utils.internals import unwrap_model

# Runs that distilling had not harmed had 2.5 at most, those that it had 4.3 and 7.3.
_TOO_FAR = 3.0


@HOOKS.register_module()
class DistillationWatchHook(Hook):
    r"""Reports at each evaluation what tells early that a distillation hurts.

    For each batch norm after a recorded convolution of the student it logs how far the features
    in evaluation are from the running statistics of that norm:

    .. math:: \overline{(z - \mu)^2 / (\sigma^2 + \epsilon)}

    averaged over channels, positions and images; 1 where evaluation is like training. Images
    with very large features are tamed by the statistics of their batch in training only. In
    evaluation their features grow from layer to layer, until the coarse levels of the head see
    objects that are not there: the losses fall and mAP stays behind. Above 3 it is a warning.

    In a distributed run the images are those of the first process.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._shifts: dict[str, list[float]] = {}
        self._handles: list = []

    def before_val_epoch(self, runner: Runner) -> None:
        self._remove()
        model = unwrap_model(runner.model)
        # MMRazor's algorithms, which run here too, have other distillers.
        sources = getattr(getattr(model, 'distiller', None), 'student_sources', {})
        for name, source in sources.items():
            norm = _norm_after(model.student, source)
            if norm is not None:
                self._shifts[name] = []
                watch = self._watch(self._shifts[name])
                self._handles.append(norm.register_forward_pre_hook(watch))

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        shifts = {
            name: sum(values) / len(values) for name, values in self._shifts.items() if values
        }
        self._remove()
        if not shifts:
            return
        listed = ', '.join(f'{name} {shift:.2g}' for name, shift in shifts.items())
        runner.logger.info(f'feature shift in evaluation, 1 is as in training: {listed}')
        far = [name for name, shift in shifts.items() if not shift <= _TOO_FAR]
        if far:
            runner.logger.log(
                logging.WARNING,
                f'the features of {", ".join(far)} are much larger in evaluation than in training, '
                'so these levels may detect what is not there; let EMAHook average fewer steps '
                '(a larger momentum), train with larger images, or give the losses of these '
                'levels loss_weight=0.0',
            )

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._shifts = [], {}

    @staticmethod
    def _watch(values: list[float]) -> Any:
        @torch.no_grad()
        def watch(norm: nn.Module, inputs: tuple) -> None:
            z = inputs[0].float()
            dims = (0, 2, 3)
            mean, square = z.mean(dims), z.square().mean(dims)
            deviation = square - 2 * norm.running_mean * mean + norm.running_mean.square()
            values.append((deviation / (norm.running_var + norm.eps)).mean().item())

        return watch


def _norm_after(model: nn.Module, source: str) -> Optional[nn.Module]:
    """Return the batch norm with running statistics after a recorded convolution, if any."""
    parent, _, child = source.rpartition('.')
    module = model.get_submodule(parent if child == 'conv' else source)
    if isinstance(module, ConvModule) and module.with_norm:
        norm = module.norm
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
            return norm
    return None
