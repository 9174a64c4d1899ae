import json
import math

import pytest
import torch

from rtm_kd.reports.work_dir import WorkDir

CONFIG = """
train_cfg = dict(max_epochs=4)
model = dict(architecture=dict(), teacher=dict())
custom_hooks = [
    dict(type='mmdet.PipelineSwitchHook', switch_epoch=3),
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=2),
]
"""
ENVIRONMENT = """2026/01/02 03:04:05 - mmengine - INFO -
System environment:
    sys.platform: linux
    Python: 3.11.7 (main, May  9 2026)
    GPU 0,1: NVIDIA H200
    PyTorch: 2.14.1
"""
PER_EPOCH = 10


def trained(step, **values):
    """A line of MMEngine's log for an iteration, counted from 1."""
    epoch = (step - 1) // PER_EPOCH + 1
    return {
        'loss': 1.0,
        'lr': 0.1,
        'time': 0.5,
        'epoch': epoch,
        'iter': step,
        'step': step,
    } | values


def evaluated(epoch, value):
    return {'coco/bbox_mAP': value, 'step': epoch}


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'runs' / 'one'


@pytest.fixture
def write(root):
    """Write the files of a run started at ``time``, and return its work dir."""

    def write(lines, time='20260102_030405', log=True, config=CONFIG, end='\n'):
        folder = root / time
        (folder / 'vis_data').mkdir(parents=True)
        text = '\n'.join(map(json.dumps, lines)) + end
        (folder / 'vis_data' / 'scalars.json').write_text(text)
        if config is not None:
            (folder / 'vis_data' / 'config.py').write_text(config)
        if log:
            last = lines[-1]['step'] if lines else 0
            (folder / f'{time}.log').write_text(
                f'{ENVIRONMENT}2026/01/02 04:05:06 - mmengine - INFO - '
                f'Epoch(train)  [1][ {last}/{PER_EPOCH}]  lr: 1.0e-01\n'
            )
        return str(root)

    return write


def test_reads_losses_metrics_marks_and_environment(write):
    lines = [
        trained(5, **{'student.loss_cls': 2.0, 'distill.loss_pkd_fpn0': 3.0}),
        trained(10, **{'student.loss_cls': 1.0, 'distill.loss_pkd_fpn0': 2.0}),
        evaluated(1, 0.25),
    ]
    run = WorkDir(write(lines))
    assert run.losses == ['student.loss_cls', 'loss', 'distill.loss_pkd_fpn0']
    assert run.curve('student.loss_cls') == [(0.5, 2.0), (1.0, 1.0)]
    assert run.metric() == 'coco/bbox_mAP'
    assert run.curve('coco/bbox_mAP') == [(1, 0.25)]
    assert run.marks == [(2, 'teacher detached'), (3, 'pipeline switch')]
    assert run.distils and not run.finished and run.position == 1
    assert run.environment['GPU'] == 'NVIDIA H200' and run.environment['Python'] == '3.11.7'
    assert run.last_logged == '2026/01/02 04:05:06'


def test_iterations_logged_twice_are_read_from_the_later_start(write):
    write([trained(5), trained(10), evaluated(1, 0.1), trained(15), trained(20), evaluated(2, 0.2)])
    # Resumed from the checkpoint of epoch 1, with another logging interval.
    later = [trained(14, loss=9.0), trained(18, loss=8.0), evaluated(2, 0.3)]
    run = WorkDir(write(later, time='20260102_050000'))
    assert run.curve('loss') == [(0.5, 1.0), (1.0, 1.0), (1.4, 9.0), (1.8, 8.0)]
    assert run.curve('coco/bbox_mAP') == [(1, 0.1), (2, 0.3)]
    # A test in the same work dir adds no training lines and removes none.
    assert WorkDir(write([], time='20260102_060000')).curve('loss') == run.curve('loss')


@pytest.mark.parametrize('log', [True, False])
def test_a_log_that_ends_in_the_first_epoch_with_half_a_line_is_read(write, log):
    run = WorkDir(write([trained(2), trained(4)], log=log, end='\n{"loss": 1.0, "ste'))
    assert len(run.curve('loss')) == 2
    assert run.metric() is None and not run.finished
    # Only the log tells the length of an epoch.
    assert run.position == (0.4 if log else 1)
    with pytest.raises(ValueError, match='has no checkpoint yet'):
        run.read_checkpoint()


def test_nan_and_inf_are_gaps_and_are_reported(write):
    lines = [trained(5), trained(10, loss=math.nan), trained(15, loss=math.inf), trained(20)]
    run = WorkDir(write(lines))
    assert [math.isnan(value) for _, value in run.curve('loss')] == [False, True, True, False]
    assert run.fault() == 'NaN or Inf, first at epoch 1: loss'


def test_a_run_is_finished_although_the_last_iterations_are_not_logged(write):
    assert WorkDir(write([trained(32), trained(36)])).finished
    assert not WorkDir(write([trained(30), trained(35)], time='20260102_040000')).finished


def test_a_run_by_iterations_is_counted_in_iterations(write):
    lines = [{'loss': 1.0, 'step': 50}, {'loss': 0.5, 'step': 100}, evaluated(100, 0.5)]
    run = WorkDir(write(lines, config='train_cfg = dict(max_iters=100)'))
    assert run.curve('loss') == [(50, 1.0), (100, 0.5)]
    assert run.finished and run.max_position == 100


def test_curves_do_not_need_the_config(write):
    run = WorkDir(write([trained(5)], config='model = dict('))
    assert run.cfg is None and run.marks == [] and run.curve('loss') == [(0.5, 1.0)]


def test_a_config_is_read_and_not_run(write, tmp_path):
    run = WorkDir(write([trained(5)], config=f'{CONFIG}a = open({str(tmp_path / "owned")!r}, "w")'))
    assert run.cfg is None and not (tmp_path / 'owned').exists()


def test_the_newest_readable_checkpoint_is_used(write, root):
    run = WorkDir(write([trained(5)]))
    for epoch in (1, 2):
        torch.save(dict(state_dict=dict(weight=torch.zeros(epoch))), root / f'epoch_{epoch}.pth')
    (root / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert run.read_checkpoint()[1] == root / 'epoch_2.pth'
    # A running training may be writing it.
    (root / 'epoch_2.pth').write_bytes((root / 'epoch_2.pth').read_bytes()[:100])
    content, path = run.read_checkpoint()
    assert path == root / 'epoch_1.pth' and len(content['state_dict']['weight']) == 1


def test_the_teacher_is_read_from_the_config(write, root):
    teacher = WorkDir(write([trained(5)], config='model = dict()'))
    config = CONFIG.replace('teacher=dict()', f"teacher=dict(), teacher_ckpt='{root}/epoch_9.pth'")
    student = WorkDir(write([trained(5)], time='20260102_040000', config=config))
    assert teacher.taught(student)
    assert not student.taught(teacher) and not teacher.distils


def test_a_folder_that_is_not_a_work_dir_is_named(write, root):
    with pytest.raises(ValueError, match=f'there is no work dir {root}'):
        WorkDir(str(root))
    write([])
    with pytest.raises(ValueError, match=rf'nothing is logged in {root} yet'):
        WorkDir(str(root))
    with pytest.raises(ValueError, match=f'is not the work dir .* give the folder above, {root}'):
        WorkDir(str(root / '20260102_030405'))
    with pytest.raises(ValueError, match=f'give one or more of those in it: {root}$'):
        WorkDir(str(root.parent))


@pytest.mark.parametrize(
    'lines', [[{'mode': 'train', 'epoch': 1, 'loss': 1.0}], [{'metrics/mAP50': 0.5, 'step': 1}]]
)
def test_refuses_the_log_of_another_framework(write, lines):
    with pytest.raises(ValueError, match='is not a training log of MMEngine'):
        WorkDir(write(lines, log=False, config=None))
