"""The warning when the student's features outgrow their batch norms."""

import re
from types import SimpleNamespace

from torch import nn

from rtm_kd.apis.train import train
from rtm_kd.engine.hooks import DistillationWatchHook
from rtm_kd.models.algorithms import FpnTeacherDistill


def logged(kd_config, options, work_dir):
    options.update(max_epochs=2, num_epochs_stage2=1, val_interval=1, val_interval_stage2=1)
    train(kd_config, work_dir=str(work_dir), cfg_options=options)
    return next(work_dir.glob('*/*.log')).read_text(encoding='utf-8')


def shifts(log):
    """level -> feature shift, for each evaluation."""
    lines = re.findall(r'feature shift in evaluation \(1: as in training\): (.*)', log)
    return [
        dict((name, float(value)) for name, value in map(str.split, line.split(', ')))
        for line in lines
    ]


def test_each_evaluation_logs_the_feature_shift(kd_config, options, tmp_path):
    evaluations = shifts(logged(kd_config, options, tmp_path))
    assert [list(levels) for levels in evaluations] == [['fpn0', 'fpn1', 'fpn2']] * 2
    assert all(shift > 0 for levels in evaluations for shift in levels.values())


def test_features_that_outgrow_their_norm_give_a_warning(kd_config, options, tmp_path, monkeypatch):
    forward = FpnTeacherDistill.forward

    def spoilt(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            self.student.neck.out_layers[1].bn.running_var.fill_(1e-6)
        return forward(self, inputs, data_samples, mode)

    monkeypatch.setattr(FpnTeacherDistill, 'forward', spoilt)
    log = logged(kd_config, options, tmp_path)
    assert all(levels['fpn1'] > 3 for levels in shifts(log))
    warnings = [line for line in log.splitlines() if 'WARNING' in line and 'evaluation' in line]
    # MMEngine shows a repeated warning only once.
    assert len(warnings) == 1 and 'the features of fpn1 are' in warnings[0]


def test_a_distillation_of_mmrazors_is_left_alone():
    model = nn.Module()
    model.distiller = nn.Module()
    hook = DistillationWatchHook()
    hook.before_val_epoch(SimpleNamespace(model=model))
    hook.after_val_epoch(SimpleNamespace(model=model), {})
