"""Mixed precision on a CPU."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper

from rtm_kd.apis.train import train
from rtm_kd.compat.checkpoint_load import load
from rtm_kd.engine import optimizers
from rtm_kd.engine.runs import enable_amp
from rtm_kd.models import ConfigurableDistiller

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is MMEngine's")


@pytest.fixture
def dtypes(monkeypatch):
    """Dtypes of the compared features: (student, teacher, loss)."""
    seen = []
    original = ConfigurableDistiller.compute_distill_losses

    def recorded(self, student_records, teacher_records, batch_size):
        losses = original(self, student_records, teacher_records, batch_size)
        outputs = student_records['fpn0'][0], teacher_records['fpn0'][0]
        seen.append((*(output.dtype for output in outputs), losses['loss_pkd_fpn0'].dtype))
        return losses

    monkeypatch.setattr(ConfigurableDistiller, 'compute_distill_losses', recorded)
    return seen


def test_a_run_changes_to_bfloat16_and_back(kd_config, options, tmp_path, distilled, dtypes):
    options.update({'num_epochs_stage2': 0, 'optim_wrapper.accumulative_counts': 2})

    def train_epoch(epoch, work_dir, **kwargs):
        dtypes.clear()
        options.update(max_epochs=epoch)
        resume = str(work_dir / f'epoch_{epoch - 1}.pth')
        train(kd_config, work_dir=str(tmp_path), resume=resume, cfg_options=options, **kwargs)
        return load(str(tmp_path / f'epoch_{epoch}.pth'))

    mixed = train_epoch(2, distilled, amp=True)
    assert dtypes == 3 * [(torch.bfloat16, torch.bfloat16, torch.float32)]
    tensors = mixed['state_dict'].values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}
    assert all(tensor.isfinite().all() for tensor in tensors)
    # Three in the first epoch, then after the fourth and the sixth iteration.
    assert {int(state['step']) for state in mixed['optimizer']['state'].values()} == {5}

    train_epoch(3, tmp_path)
    assert dtypes == 3 * [(torch.float32, torch.float32, torch.float32)]


@pytest.mark.parametrize('native', [True, False])
def test_a_processor_without_bfloat16_is_named_once(monkeypatch, native):
    said = []
    monkeypatch.setattr(optimizers, 'print_log', lambda text, **_: said.append(text))
    monkeypatch.setattr(optimizers, 'cpu_has_bfloat16', lambda: native)
    cfg = dict(type='rtm_kd.CpuAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    model = torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(model, cfg)
    for _ in range(2):
        with wrapper.optim_context(model):
            output = model(torch.ones(1, 2))
        assert output.dtype is torch.bfloat16
        wrapper.update_params(output.sum())
    assert ['no native bfloat16' in text for text in said] == ([] if native else [True])


@pytest.mark.parametrize(
    'kind',
    [
        *(None, 'OptimWrapper', 'AmpOptimWrapper', 'mmengine.OptimWrapper', OptimWrapper),
        'rtm_kd.CpuAmpOptimWrapper',
    ],
)
def test_the_configs_wrapper_keeps_its_other_options(kind):
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.1), clip_grad=dict(max_norm=35))
    scaled = dict(loss_scale=512.0, dtype='float16') if kind == 'AmpOptimWrapper' else {}
    cfg = Config(dict(optim_wrapper={**wrapper, **scaled, **(dict(type=kind) if kind else {})}))
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='rtm_kd.CpuAmpOptimWrapper', **wrapper)


def test_another_kind_of_wrapper_is_refused():
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))
