"""Runs whose losses or weights become NaN or Inf."""

import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rtm_kd.apis.train import train
from rtm_kd.engine.hooks import FiniteLossHook
from rtm_kd.models.algorithms import FpnTeacherDistill

ITERATIONS = 3  # per epoch


@pytest.fixture
def spoil(monkeypatch):
    """Change a distillation loss in the given iteration, counted from 0."""
    loss = FpnTeacherDistill.loss
    spoilt = {}
    done = []

    def changed(self, *args, **kwargs):
        losses = loss(self, *args, **kwargs)
        if len(done) in spoilt:
            name = 'distill.loss_pkd_fpn1'
            losses[name] = spoilt[len(done)](losses[name])
        done.append(losses)
        return losses

    def spoil(iteration, change):
        spoilt[iteration] = change

    monkeypatch.setattr(FpnTeacherDistill, 'loss', changed)
    return spoil


@pytest.fixture
def begun(distilled, tmp_path):
    """A work dir with the checkpoint of the first epoch."""
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    shutil.copy(distilled / 'epoch_1.pth', work_dir)
    return work_dir


def checkpoints(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth'))


def test_a_nan_loss_ends_the_run_which_resumes_from_its_last_checkpoint(
    kd_config, options, begun, spoil
):
    spoil(1, lambda loss: loss * math.nan)
    with pytest.raises(ValueError) as stopped:
        train(kd_config, work_dir=str(begun), resume='auto', cfg_options=options)
    message = str(stopped.value)
    assert message.startswith(
        'epoch 2, iteration 2 of 3: distill.loss_pkd_fpn1 '
        '(FPN level 1, "neck.out_layers.1.conv" of the student) is nan; stopped'
    )
    assert f'the last good checkpoint is {begun / "epoch_1.pth"}, and --resume' in message
    assert '\n' not in message
    assert checkpoints(begun) == ['epoch_1.pth']
    assert message in next(begun.glob('*/*.log')).read_text()

    options.update(max_epochs=2, num_epochs_stage2=0)
    runner = train(kd_config, work_dir=str(begun), resume='auto', cfg_options=options)
    assert runner.iter == 2 * ITERATIONS
    assert checkpoints(begun) == ['epoch_1.pth', 'epoch_2.pth']


def test_weights_broken_by_a_finite_loss_are_not_saved(kd_config, options, tmp_path, spoil):
    # The square root has an infinite gradient at zero.
    spoil(0, lambda loss: loss + (loss * 0).sqrt())
    options['train_dataloader.dataset.indices'] = 4  # one iteration, then a checkpoint
    work_dir = tmp_path / 'run'
    with pytest.raises(ValueError) as stopped:
        train(kd_config, work_dir=str(work_dir), cfg_options=options)
    assert 'of its weights are NaN or Inf' in str(stopped.value)
    assert 'epoch 1: architecture.' in str(stopped.value)
    assert 'there is no checkpoint yet' in str(stopped.value)
    assert checkpoints(work_dir) == []
    # The log up to that point can still be read.
    assert 'Epoch(train)' in next(work_dir.glob('*/*.log')).read_text()


class Run:
    """A minimal runner with mixed precision, whose loss scale is halved at each NaN or Inf."""

    epoch = 0
    train_dataloader = range(100)

    def __init__(self, work_dir, scale=None, fixed=None, enabled=True):
        self.work_dir = str(work_dir)
        self.model = nn.Linear(2, 2)
        self.optim_wrapper = SimpleNamespace(_scale_update_param=fixed)
        if scale is not None or fixed is not None:
            self.optim_wrapper.loss_scaler = SimpleNamespace(
                get_scale=lambda: self.scale, is_enabled=lambda: enabled
            )
        self.scale = fixed or scale
        self.fixed = fixed
        self.hook = FiniteLossHook()

    def iterate(self, loss, **losses):
        if not math.isfinite(loss) and self.scale is not None and self.fixed is None:
            self.scale /= 2
        outputs = {name: torch.tensor(value) for name, value in {'loss': loss, **losses}.items()}
        self.hook.after_train_iter(self, 0, outputs=outputs)


def test_without_mixed_precision_the_first_nan_loss_ends_the_run(tmp_path):
    run = Run(tmp_path)
    run.iterate(1.0, accuracy=math.nan)  # only logged, not part of the total
    with pytest.raises(ValueError, match='loss_cls is nan, loss_bbox is inf; stopped'):
        run.iterate(math.nan, loss_cls=math.nan, loss_bbox=math.inf, loss_other=1.0)
    with pytest.raises(ValueError, match=r'none .* finite \(loss_cls, loss_bbox\), .* weights'):
        run.iterate(math.nan, loss_cls=math.nan, loss_bbox=math.inf)
    with pytest.raises(ValueError, match='the sum of the losses is inf'):
        run.iterate(math.inf, loss_cls=1.0)


def test_a_disabled_scaler_counts_as_no_scaler(tmp_path):
    with pytest.raises(ValueError, match='loss_cls is nan'):
        Run(tmp_path, scale=65536.0, enabled=False).iterate(math.nan, loss_cls=math.nan)


def test_mixed_precision_continues_until_the_scaler_gives_up(tmp_path):
    run = Run(tmp_path, scale=4.0)
    for _ in range(2):
        run.iterate(math.inf, loss_cls=math.inf)
    run.iterate(1.0, loss_cls=1.0)
    with pytest.raises(ValueError, match=r'loss_cls is inf; .* without mixed precision'):
        run.iterate(math.inf, loss_cls=math.inf)


def test_a_fixed_scale_gives_up_after_the_same_number_of_failures(tmp_path):
    run = Run(tmp_path, fixed=512.0)
    for _ in range(2):
        for _ in range(16):
            run.iterate(math.inf, loss_cls=math.inf)
        run.iterate(1.0, loss_cls=1.0)
    for _ in range(16):
        run.iterate(math.inf, loss_cls=math.inf)
    with pytest.raises(ValueError, match='loss_cls is inf'):
        run.iterate(math.inf, loss_cls=math.inf)


def test_a_loss_scale_of_zero_ends_the_run(tmp_path):
    run = Run(tmp_path, scale=1e-9)
    run.iterate(1.0, loss_cls=1.0)
    run.scale = 0.0
    with pytest.raises(ValueError, match='fallen to 0, so the weights no longer change'):
        run.iterate(1.0, loss_cls=1.0)


@pytest.mark.parametrize('name', ['0.weight', '1.running_var'])
def test_weights_with_nan_or_inf_are_neither_saved_nor_resumed(tmp_path, name):
    run = Run(tmp_path)
    run.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    # Buffers may be infinite on purpose.
    run.model.register_buffer('mask', torch.tensor(-math.inf))
    checkpoint = dict(state_dict=run.model.state_dict())
    run.hook.before_save_checkpoint(run, checkpoint)
    run.hook.after_load_checkpoint(run, checkpoint)
    checkpoint['state_dict'][name].view(-1)[0] = math.inf
    with pytest.raises(ValueError, match=f'epoch 1: {name} of its weights'):
        run.hook.before_save_checkpoint(run, checkpoint)
    run._load_from = 'epoch_7.pth'
    for loaded in (checkpoint, checkpoint['state_dict']):
        with pytest.raises(ValueError, match=rf'epoch_7\.pth is of a run .* wrong: {name} of'):
            run.hook.after_load_checkpoint(run, loaded)
    # The student of a distillation, which a plain model loads.
    distilled = {f'architecture.{n}': value for n, value in checkpoint['state_dict'].items()}
    with pytest.raises(ValueError, match=f'wrong: architecture.{name} of'):
        run.hook.after_load_checkpoint(run, distilled)
