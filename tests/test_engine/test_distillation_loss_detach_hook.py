"""The end of distillation, and resuming before and after it."""

import gc
import json
import weakref
from pathlib import Path

import pytest
from mmengine.registry import HOOKS
from mmrazor.registry import HOOKS as MMRAZOR_HOOKS

from rtm_kd.apis.train import train
from rtm_kd.engine.hooks import DistillationLossDetachHook
from rtm_kd.models.algorithms.frozen_teacher import FrozenTeacher
from rtm_kd.utils import load_config

DETACH_EPOCH = 2  # of three epochs of three iterations each


@pytest.fixture
def teacher_runs(monkeypatch):
    """Record every forward pass of a teacher on a training batch."""
    runs = []
    record = FrozenTeacher.record

    def counted(self, batch_inputs):
        runs.append(weakref.ref(self.model))
        return record(self, batch_inputs)

    monkeypatch.setattr(FrozenTeacher, 'record', counted)
    return runs


def logged(work_dir):
    """The training lines of the newest log, one per iteration."""
    newest = max(Path(work_dir).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def epochs_with_distillation(work_dir):
    return [line['epoch'] for line in logged(work_dir) if 'distill.loss_pkd_fpn0' in line]


def test_after_the_detach_no_teacher_runs_and_no_distillation_loss_is_logged(
    kd_config, options, tmp_path, teacher_runs
):
    runner = train(kd_config, work_dir=str(tmp_path), cfg_options=options)

    assert len(teacher_runs) == 3 * DETACH_EPOCH
    assert epochs_with_distillation(tmp_path) == [1, 1, 1, 2, 2, 2]
    assert [line['epoch'] for line in logged(tmp_path)] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    gc.collect()
    assert all(teacher() is None for teacher in teacher_runs)
    assert runner.model.distillation_stopped
    last = logged(tmp_path)[-1]
    assert 'student.loss_cls' in last and not any('distill' in name for name in last)


@pytest.mark.parametrize('epoch, runs', [(1, 3), (2, 0), (3, 0)])
def test_resuming_on_either_side_of_the_detach(
    kd_config, options, tmp_path, distilled, teacher_runs, epoch, runs
):
    options.update(max_epochs=4, num_epochs_stage2=2)
    if runs == 0:
        # After the detach the teacher's file may be gone.
        options['teacher_ckpt'] = 'gone.pth'
    runner = train(
        kd_config,
        work_dir=str(tmp_path),
        resume=str(distilled / f'epoch_{epoch}.pth'),
        cfg_options=options,
    )

    assert runner.epoch == 4
    assert len(teacher_runs) == runs
    assert epochs_with_distillation(tmp_path) == [2] * runs


def test_a_shortened_schedule_detaches_with_the_pipeline_switch(kd_config, options):
    cfg = load_config(kd_config, {**options, 'max_epochs': 9, 'num_epochs_stage2': 4})
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert hooks['mmdet.PipelineSwitchHook'].switch_epoch == 5
    assert hooks['rtm_kd.DistillationLossDetachHook'].detach_epoch == 5


def test_the_type_name_of_the_published_recipe_works_too():
    for name in ('rtm_kd.DistillationLossDetachHook', 'mmrazor.DistillationLossDetachHook'):
        hook = HOOKS.build(dict(type=name, detach_epoch=280))
        assert isinstance(hook, DistillationLossDetachHook)


def test_mmrazors_own_hook_stops_our_distillation(kd_config, options, tmp_path, teacher_runs):
    cfg = Path(tmp_path / 'cfg.py')
    cfg.write_text(
        f"_base_ = '{kd_config}'\n"
        'custom_hooks = [*_base_.custom_hooks[:2], '
        "dict(type='mmrazor.StopDistillHook', stop_epoch=1)]\n"
    )
    train(str(cfg), work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert len(teacher_runs) == 3


def test_mmrazor_keeps_its_classes():
    for name in ('StopDistillHook', 'DMCPSubnetHook'):
        assert MMRAZOR_HOOKS.get(name).__module__.startswith('mmrazor.')


@pytest.mark.parametrize('detach_epoch', [-1, 1.5, 'last', True, None])
def test_refuses_an_invalid_epoch(detach_epoch):
    with pytest.raises(ValueError, match='detach_epoch must be an integer from 0 up'):
        DistillationLossDetachHook(detach_epoch)


def test_refuses_an_epoch_past_the_last(kd_config, options, tmp_path):
    options['custom_hooks.2.detach_epoch'] = 4
    with pytest.raises(ValueError, match='detach_epoch=4 is past the last of 3 epochs'):
        train(kd_config, work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert not (tmp_path / 'run').exists()


def test_refuses_a_model_that_does_not_distil(plain_config, options, tmp_path):
    options.pop('teacher_ckpt')
    config = tmp_path / 'own.py'
    hooks = [dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=1)]
    config.write_text(f'_base_ = {plain_config!r}\ncustom_hooks = {hooks}\n')
    with pytest.raises(ValueError, match='YOLODetector does not distil'):
        train(str(config), work_dir=str(tmp_path / 'run'), cfg_options=options)


def test_distilling_to_the_end_is_allowed(kd_config, options, tmp_path, teacher_runs):
    options.update(max_epochs=1, num_epochs_stage2=0)
    train(kd_config, work_dir=str(tmp_path), cfg_options=options)
    assert len(teacher_runs) == 3
