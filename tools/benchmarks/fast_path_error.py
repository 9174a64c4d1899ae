"""Error of the fast paths relative to MMRazor's arithmetic."""

import copy
from collections import defaultdict
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from rtm_kd.utils import load_config
from rtm_kd.utils.checkpoint import read_checkpoint

from .measure import seed


def fast_path_error(
    config: str, checkpoint: str, cfg_options: dict[str, Any], batches: int = 8
) -> dict[str, dict[str, list[float]]]:
    """Compare the distillation losses of each fast path with the reference's.

    Args:
        config (str): Path of a distillation config of ours, with its own data.
        checkpoint (str): Checkpoint of the distillation, for the student and connectors.
        cfg_options (dict): Such as ``teacher_ckpt``.
        batches (int): Number of training batches.

    Returns:
        dict: For each path, by batch, ``'loss'``, the relative error of the sum of the losses, and
        ``'gradient'``, the norm of the error of the student's gradient relative to its norm.
    """
    cfg = load_config(config, {**cfg_options, 'train_num_workers': 0})
    state_dict = read_checkpoint(checkpoint)['state_dict']

    def build(**switches: Any):
        model = MODELS.build(ConfigDict(cfg.model, **switches)).train()
        model.load_state_dict(state_dict)
        return model

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        reference = build(reference=True)
        paths = {
            'teacher folded': build(reference=True),
            'norm and divergence in one': build(
                reference=True, distiller=dict(cfg.model.distiller, reference=False)
            ),
            'student channels_last': build(reference=True),
            'default': build(),
        }
        paths['teacher folded']._teacher = build()._teacher
        paths['student channels_last']._channels_last = True
        paths['student channels_last'].student.to(memory_format=torch.channels_last)
        loader = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    errors = {name: defaultdict(list) for name in paths}
    for index in range(batches):
        seed(index)
        data = reference.data_preprocessor(next(loader), True)
        expected_loss, expected = _distillation_gradient(reference, data)
        for name, model in paths.items():
            loss, gradient = _distillation_gradient(model, data)
            errors[name]['loss'].append(abs(loss / expected_loss - 1))
            errors[name]['gradient'].append(float((gradient - expected).norm() / expected.norm()))
    return errors


def _distillation_gradient(model, data: dict) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    losses = model.loss(data['inputs'], copy.deepcopy(data['data_samples']))
    total = sum(loss for name, loss in losses.items() if name.startswith('distill.'))
    total.backward()
    gradients = [p.grad.flatten() for p in model.student.parameters() if p.grad is not None]
    return float(total), torch.cat(gradients)
