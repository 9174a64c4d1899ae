"""Fuzzed config values: a run starts, or is refused in one sentence."""

import os

import pytest
from helpers import make_options
from hypothesis import given, note, settings
from hypothesis import strategies as st
from mmengine.runner import Runner
from watch import nothing_happens_outside

from rtm_kd.apis.train import train
from rtm_kd.utils import report_usage_errors

# Values that users change for their own data, and some that they should not.
_NAMES = [
    *['img_scale', 'train_batch_size_per_gpu', 'train_num_workers', 'max_epochs', 'base_lr'],
    *['num_epochs_stage2', 'val_interval', 'class_names', 'data_root', 'train_ann_file'],
    *['teacher', 'teacher_ckpt', 'loss_weight', 'tau', 'train_data_prefix', 'load_from'],
    *['optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.type', 'param_scheduler.0.begin'],
    *['custom_hooks.2.detach_epoch', 'custom_hooks.9.type', 'randomness.seed', 'custom_imports'],
    *['model.reference', 'model.architecture.backbone.widen_factor', 'model.distiller'],
    *['model.distiller.connectors.fpn0_s.in_channel', 'model.distiller.distill_losses.kd.type'],
    *['model.distiller.student_recorders.fpn1.source', 'model.teacher', 'model.nonsense'],
    *['nonsense', 'model', 'default_scope', 'train_dataloader', 'train_dataloader.dataset.type'],
    *['train_dataloader.dataset.pipeline', 'val_evaluator.ann_file', 'env_cfg', 'work_dir'],
]
_VALUES = st.recursive(
    st.one_of(
        *[st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=4)],
        st.sampled_from(['adam', 'Mosaic', '../..', 'x.py', 'mmyolo::rtmdet/nothing.py']),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(['type', 'cfg_path', 'a']), inner, max_size=2),
    ),
    max_leaves=4,
)


# Each case builds a complete run, which takes a second or two.
@settings(max_examples=max(30, settings.default.max_examples // 5))
@given(values=st.dictionaries(st.sampled_from(_NAMES), _VALUES, min_size=1, max_size=3))
def test_a_run_starts_or_is_refused_in_one_sentence(values, kd_config, data_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    options = {**make_options(data_root), **values}
    begun = pytest.MonkeyPatch()
    begun.setattr(Runner, 'train', lambda self: self.model.init_weights())
    # Collecting the environment runs gcc --version and others.
    begun.setattr(Runner, '_log_env', lambda self, env_cfg: None)
    begun.chdir(folder)
    with begun.context(), nothing_happens_outside(folder, os.environ.get('TMPDIR', '/tmp')):
        try:
            with report_usage_errors():
                train(kd_config, work_dir=str(folder / 'run'), cfg_options=options)
        except SystemExit as error:
            note(f'refused with {error.code}')
            assert error.code == 2
        finally:
            begun.undo()
