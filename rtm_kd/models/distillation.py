"""What a config says about distilling."""

from dataclasses import dataclass
from typing import Any, Optional

from mmengine.config import Config

from rtm_kd.utils.config import bare_type, get_value

from .algorithms.detector import resolve_model_cfg
from .algorithms.frozen_teacher import RANDOM

# Ours and MMRazor's, with the argument that says when they end the distillation.
_DETACH_HOOKS = {'DistillationLossDetachHook': 'detach_epoch', 'StopDistillHook': 'stop_epoch'}


@dataclass(frozen=True)
class Distillation:
    """The distillation of a config.

    Student and teacher are in one of the forms that
    :func:`~.algorithms.detector.resolve_model_cfg` takes.
    """

    student: Any
    teacher: Any
    teacher_ckpt: Optional[str]  # path or URL, or 'random'
    detach_epoch: Optional[int]  # epochs that are distilled, None for all of them

    @classmethod
    def of(cls, cfg: Optional[Config]) -> Optional['Distillation']:
        """Return the distillation of a config, None for a detector's own."""
        model = (cfg or {}).get('model') or {}
        if 'architecture' not in model:
            return None
        hooks = cfg.get('custom_hooks') or []
        epochs = [hook.get(_DETACH_HOOKS[bare_type(hook)]) for hook in hooks if ends(hook)]
        return cls(
            student=model['architecture'],
            teacher=model.get('teacher'),
            teacher_ckpt=model.get('teacher_ckpt'),
            detach_epoch=min(filter(lambda epoch: isinstance(epoch, int), epochs), default=None),
        )

    @property
    def teacher_is_trained(self) -> bool:
        """Whether the teacher has a checkpoint, a file or a URL."""
        return isinstance(self.teacher_ckpt, str) and self.teacher_ckpt != RANDOM

    @property
    def teacher_file(self) -> Optional[str]:
        """The teacher's checkpoint if that is a file, else None."""
        is_file = self.teacher_is_trained and '://' not in self.teacher_ckpt
        return self.teacher_ckpt if is_file else None


def ends(hook: dict) -> bool:
    """Return whether a hook's config is one that ends a distillation."""
    return bare_type(hook) in _DETACH_HOOKS


def use_student(cfg: Config) -> None:
    """Turn a distillation's config into its student's; leave any other model as it is.

    The model gets the data preprocessor that it has in a training with the config.
    """
    preprocessor = get_value(cfg, 'model.data_preprocessor') or cfg.get('data_preprocessor')
    distillation = Distillation.of(cfg)
    if distillation is not None:
        cfg.model = resolve_model_cfg(distillation.student, 'architecture')
    if preprocessor is not None:
        cfg.model.data_preprocessor = preprocessor
