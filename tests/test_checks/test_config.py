"""Checks of a config before a run."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from rtm_kd.checks.config import check_distilled_steps

TEACHER = dict(architecture='student.py', teacher='teacher.py')


@pytest.mark.parametrize(
    'model, hooks, warned',
    [
        (TEACHER, [dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=6)], '240 steps'),
        (TEACHER, [dict(type='mmrazor.StopDistillHook', stop_epoch=6)], '240 steps'),
        (TEACHER, [dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=14)], None),
        # Without a hook that stops distillation, the run distils to its end.
        (TEACHER, [], None),
        (dict(type='YOLODetector'), [], None),
        (dict(architecture='pruned.py'), [dict(type='StopDistillHook', stop_epoch=1)], None),
    ],
)
def test_a_short_distillation_is_warned_of(model, hooks, warned):
    cfg = Config(dict(model=model, custom_hooks=hooks))
    runner = SimpleNamespace(cfg=cfg, max_iters=640, train_dataloader=range(40))
    warnings = check_distilled_steps(runner)
    assert [warned in warning for warning in warnings] == ([True] if warned else [])
