"""Distillation changes the student only by its losses."""

import pytest
import torch
from helpers import ROOT, unique_names
from mmengine.hooks import Hook
from mmengine.runner import Runner

from rtm_kd.compat.channels_last import to_channels_last
from rtm_kd.models.algorithms.fpn_teacher_distill import _contiguous
from rtm_kd.utils import load_config

STUDENT_CONFIG = str(ROOT / 'configs/custom_dataset/rtmdet_student.py')


class ChannelsLast(Hook):
    """Train a plain detector in channels_last, as the default step does with a student."""

    priority = 'VERY_HIGH'

    def before_run(self, runner):
        model = runner.model
        initialise = model.init_weights
        to_channels_last(model)

        def init_weights():
            # Random init fills storage order, which channels_last would change.
            with _contiguous(model):
                initialise()

        model.init_weights = init_weights


def trained(config, options, work_dir, *hooks):
    cfg = load_config(config, {**options, **unique_names()})
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    averaged = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model
    return {
        kind: getattr(model, 'architecture', model).state_dict()
        for kind, model in (('trained', runner.model), ('averaged', averaged.module))
    }


@pytest.mark.parametrize('reference', [True, False])
def test_losses_of_weight_zero_give_the_weights_of_plain_training(
    kd_config, options, tmp_path, reference
):
    plain_options = {
        name: value
        for name, value in options.items()
        if name != 'teacher_ckpt' and not name.startswith('model.')
    }
    hooks = [] if reference else [ChannelsLast()]
    plain = trained(STUDENT_CONFIG, plain_options, tmp_path / 'plain', *hooks)
    distilled = trained(
        kd_config,
        {**options, 'loss_weight': 0.0, 'model.reference': reference},
        tmp_path / 'distilled',
    )
    for kind, weights in plain.items():
        assert weights.keys() == distilled[kind].keys()
        for name, weight in weights.items():
            assert torch.equal(weight, distilled[kind][name]), (kind, name)
