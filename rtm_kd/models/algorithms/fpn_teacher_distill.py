from typing import Optional, Union

import torch
from mmengine.model import BaseModel
from torch import nn

from rtm_kd.registry import MODELS, SCOPE
from rtm_kd.utils.errors import UsageError

from ..distillers import ConfigurableDistiller
from ..distillers.recorder import check_sources, record_outputs
from .detector import build_detector
from .frozen_teacher import FrozenTeacher

# Side of the square that student and teacher see once, when their shapes are checked, in
# pixels: two positions a side are left at stride 32.
_PROBE_SIZE = 64


@MODELS.register_module()
class FpnTeacherDistill(BaseModel):
    """A student that learns from the features of a frozen teacher's FPN.

    The teacher runs its backbone and neck, never its head. It is not a submodule: it is in
    no checkpoint, no EMA copy and no optimizer, and :meth:`detach_teacher` frees it.

    Takes the arguments of MMRazor's algorithm of this name.

    Args:
        architecture (dict | str | BaseModel): The student: a model, its config,
            ``dict(cfg_path=..., **overrides)``, or the path of a config file or
            ``package::path``. See :func:`~.detector.resolve_model_cfg`.
        teacher (dict | str | BaseModel): The teacher, in the same forms.
        distiller (dict): Config of a :class:`ConfigurableDistiller`.
        teacher_ckpt (str, optional): Path or URL of the teacher's checkpoint, which
            :meth:`init_weights` loads, or ``'random'`` for a teacher that knows nothing.
            Required unless the teacher is a built model.
        data_preprocessor (dict | nn.Module, optional): Defaults to the student's.
        reference (bool): Do MMRazor's arithmetic exactly. By default a faster one runs, of
            which docs/performance.md says how close it comes: a teacher with folded BN, the
            norms and the divergence as one function, and the channels_last memory format.
            Defaults to False.
        half_teacher (bool): Run the teacher in half precision where the machine has it. The
            fastest, but not shown to teach as well. Defaults to False.
        module_inplace (bool): Whether the student's activations may work in place, on
            what a recorder has recorded. Defaults to False.
        teacher_module_inplace (bool): The same for the teacher.
        teacher_trainable, teacher_norm_eval, student_trainable, calculate_student_loss:
            Accepted at MMRazor's defaults, so that its configs carry over; nothing else
            is meaningful with a frozen teacher.
        init_cfg (dict, optional): Initialisation, in addition to the student's own.

    Raises:
        ValueError: If the teacher has no checkpoint, a recorder's source is no module, or
            a connector does not fit its features.
    """

    def __init__(
        self,
        architecture: Union[BaseModel, dict, str],
        teacher: Union[BaseModel, dict, str],
        distiller: dict,
        teacher_ckpt: Optional[str] = None,
        data_preprocessor: Union[dict, nn.Module, None] = None,
        reference: bool = False,
        half_teacher: bool = False,
        module_inplace: bool = False,
        teacher_module_inplace: bool = False,
        teacher_trainable: bool = False,
        teacher_norm_eval: bool = True,
        student_trainable: bool = True,
        calculate_student_loss: bool = True,
        init_cfg: Optional[dict] = None,
    ) -> None:
        for name, value, only in (
            ('teacher_trainable', teacher_trainable, False),
            ('teacher_norm_eval', teacher_norm_eval, True),
            ('student_trainable', student_trainable, True),
            ('calculate_student_loss', calculate_student_loss, True),
        ):
            if value is not only:
                raise UsageError(f'{name}={value!r} is not supported, leave it at {only}')
        student = build_detector(architecture, 'architecture')
        super().__init__(data_preprocessor or student.data_preprocessor, init_cfg)
        self.architecture = student
        self.distiller = MODELS.build({'_scope_': SCOPE, **distiller})
        if not isinstance(self.distiller, ConfigurableDistiller):
            raise UsageError(
                f'distiller is a {type(self.distiller).__module__} class; this algorithm needs '
                'type="rtm_kd.ConfigurableDistiller", which takes the same arguments'
            )
        self.distiller.reference = reference
        self._teacher = FrozenTeacher(
            teacher, teacher_ckpt, self.distiller.teacher_sources, reference, half_teacher
        )
        self._channels_last = not reference
        if self._channels_last:
            student.to(memory_format=torch.channels_last)
        if not module_inplace:
            _set_inplace_false(student)
        if not teacher_module_inplace:
            _set_inplace_false(self.teacher)
        self._check_features()

    @property
    def student(self) -> nn.Module:
        """The model that is trained, alias of ``architecture``."""
        return self.architecture

    @property
    def teacher(self) -> Optional[nn.Module]:
        """The frozen teacher, None once it is detached."""
        return self._teacher.model

    def forward(self, inputs: torch.Tensor, data_samples=None, mode: str = 'tensor'):
        """Losses of student and distillation in mode ``'loss'``, else the student alone."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, batch_inputs: torch.Tensor, data_samples=None) -> dict[str, torch.Tensor]:
        """One training step's losses.

        Args:
            batch_inputs (Tensor): Preprocessed images, (N, 3, H, W).
            data_samples: Ground truth as the student's head takes it.

        Returns:
            dict[str, Tensor]: The student's own losses as ``student.*``, and until the
            teacher is detached those of distillation as ``distill.*``.
        """
        if self._channels_last:
            batch_inputs = batch_inputs.contiguous(memory_format=torch.channels_last)
        if self.distillation_stopped:
            return _prefixed('student', self.student(batch_inputs, data_samples, mode='loss'))

        teacher_records = self._teacher.record(batch_inputs)
        with record_outputs(self.student, self.distiller.student_sources) as student_records:
            losses = self.student(batch_inputs, data_samples, mode='loss')
        distill_losses = self.distiller.compute_distill_losses(student_records, teacher_records)
        return {**_prefixed('student', losses), **_prefixed('distill', distill_losses)}

    def init_weights(self) -> None:
        """Initialise the student and load the teacher's checkpoint.

        Raises:
            ValueError: If the teacher's checkpoint can't be read or does not fit.
        """
        super().init_weights()
        if not self.distillation_stopped:
            self._teacher.load()

    def detach_teacher(self) -> None:
        """Stop distilling for good and free the teacher.

        The connectors stay, without gradients, so that checkpoints and the optimizer's
        state keep their shape across the detach.
        """
        self._teacher.release()
        self.distiller.requires_grad_(False)
        for parameter in self.distiller.parameters():
            parameter.grad = None

    @property
    def distillation_stopped(self) -> bool:
        """Whether the teacher is detached; MMRazor's hooks set it to True."""
        return self.teacher is None

    @distillation_stopped.setter
    def distillation_stopped(self, stopped: bool) -> None:
        if stopped:
            self.detach_teacher()
        elif self.distillation_stopped:
            raise ValueError('the teacher has been detached and freed; build the model anew')

    def _apply(self, fn, *args, **kwargs):
        # The teacher follows the student to another device or dtype.
        super()._apply(fn, *args, **kwargs)
        if not self.distillation_stopped:
            self.teacher._apply(fn, *args, **kwargs)
        return self

    @torch.no_grad()
    def _check_features(self) -> None:
        """Find what does not fit on one small grey image instead of in the first batch."""
        check_sources(self.student, self.distiller.student_sources, 'student')
        modes = {module: module.training for module in self.modules()}
        self.eval()
        probe = next(self.student.parameters()).new_zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE)
        with record_outputs(self.student, self.distiller.student_sources) as student_records:
            self.student.extract_feat(probe)
        teacher_records = self._teacher.record(probe, loading=False)
        for owner, records in (('student', student_records), ('teacher', teacher_records)):
            silent = [name for name, outputs in records.items() if not outputs]
            if silent:
                raise UsageError(
                    f'recorders {silent} of the {owner} record nothing while its backbone and '
                    'neck run; choose sources inside these two'
                )
        self.distiller.check_features(student_records, teacher_records)
        for module, mode in modes.items():
            module.training = mode


def _prefixed(prefix: str, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f'{prefix}.{name}': loss for name, loss in losses.items()}


def _set_inplace_false(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
