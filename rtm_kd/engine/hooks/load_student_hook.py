"""A detector that starts from a distillation's checkpoint."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from rtm_kd.registry import HOOKS
from rtm_kd.utils.checkpoint import STUDENT_PREFIX, student_state_dict
from rtm_kd.utils.internals import unwrap_model


@HOOKS.register_module()
class LoadStudentHook(Hook):
    """Loads the student where ``load_from`` of a detector names a distillation's checkpoint.

    Such are the distilled weights that MMYOLO has published. MMEngine would find none of the
    detector's names in the file, and start from scratch with a warning for each.
    """

    # Before EMAHook, which takes the weights over.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        own = unwrap_model(runner.model).state_dict()
        if 'state_dict' in checkpoint and not any(n.startswith(STUDENT_PREFIX) for n in own):
            checkpoint['state_dict'] = student_state_dict(checkpoint['state_dict'])
