"""The end of distillation before the end of training."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmrazor.registry import HOOKS as MMRAZOR_HOOKS

from rtm_kd.registry import HOOKS
from rtm_kd.utils.checkpoint import newest_checkpoint, read_checkpoint
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.internals import checkpoint_to_load, forget_scalar, is_resuming, unwrap_model


@HOOKS.register_module()
class DistillationLossDetachHook(Hook):
    """End distillation at an epoch, as the second of DAMO-YOLO's two stages.

    From ``detach_epoch`` on, usually when the pipeline without mosaic begins, the student trains on
    its own losses alone, the teacher is freed, and the log shows no distillation losses. A run that
    resumes after it does not read the teacher's checkpoint.

    Source: Xu et al., "DAMO-YOLO: A Report on Real-Time Object Detection Design",
    https://arxiv.org/abs/2211.15444, section 2.5.

    Args:
        detach_epoch (int): First epoch without distillation, counted from 0. The number of epochs
            of the run means: distil to the end.

    Raises:
        ValueError: If it is negative, or past the last epoch of the run.
    """

    priority = 'NORMAL'

    def __init__(self, detach_epoch: int) -> None:
        if not isinstance(detach_epoch, int) or isinstance(detach_epoch, bool) or detach_epoch < 0:
            raise UsageError(f'detach_epoch must be an integer from 0 up, got {detach_epoch!r}')
        self.detach_epoch = detach_epoch
        self._ended = False

    def before_run(self, runner: Runner) -> None:
        # The teacher's checkpoint is read right after this, the one to resume from after that.
        model = unwrap_model(runner.model)
        if not is_resuming(runner) or not hasattr(model, 'distillation_stopped'):
            return
        checkpoint = checkpoint_to_load(runner) or newest_checkpoint(runner.work_dir)
        if checkpoint is not None:
            meta = read_checkpoint(checkpoint).get('meta', {})
            if meta.get('epoch', 0) >= self.detach_epoch:
                # Nothing else: another process may have found another checkpoint.
                model.distillation_stopped = True

    def before_train(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        if not hasattr(model, 'distillation_stopped'):
            raise UsageError(
                f'a {type(model).__name__} does not distil, so DistillationLossDetachHook has '
                'nothing to end; take it out of custom_hooks'
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise UsageError(
                'DistillationLossDetachHook counts epochs, and this run has a '
                f'{type(runner.train_loop).__name__}; use an EpochBasedTrainLoop'
            )
        if self.detach_epoch > runner.max_epochs:
            raise UsageError(
                f'detach_epoch={self.detach_epoch} is past the last of {runner.max_epochs} epochs, '
                'so distillation would never end; set it to max_epochs - num_epochs_stage2'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch < self.detach_epoch or self._ended:
            return
        self._ended = True
        model = unwrap_model(runner.model)
        model.distillation_stopped = True
        if is_model_wrapper(runner.model):
            # DDP waits for a gradient of every parameter that it was built with.
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), model)
        # The log prints the last value of every scalar in the hub.
        hub = runner.message_hub
        for name in [name for name in hub.log_scalars if '/distill.' in name]:
            forget_scalar(hub, name)
        runner.logger.info(f'Epoch {runner.epoch + 1}: distillation has ended, teacher detached')


# The spelling of the published recipe, unless MMRazor gets a hook of this name.
if 'DistillationLossDetachHook' not in MMRAZOR_HOOKS.module_dict:
    MMRAZOR_HOOKS.register_module(module=DistillationLossDetachHook)
