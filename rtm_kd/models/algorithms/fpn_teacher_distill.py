"""The algorithm: a training step with a teacher."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional, Union

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import nn

from rtm_kd.compat.channels_last import to_channels_last
from rtm_kd.registry import MODELS, SCOPE, model_class
from rtm_kd.utils.checkpoint import accept_plain_weights
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.preserving import evaluating, preserved_randomness

from ..distillers import ConfigurableDistiller
from ..distillers.recorder import Records, check_sources, record_features, record_outputs
from .detector import FEATURE_PARTS, build_detector
from .frozen_teacher import FrozenTeacher

# Side of the square that student and teacher see once, when their shapes are checked, in
# pixels: two positions a side are left at stride 32, one at stride 64.
_PROBE_SIZE = 64


@MODELS.register_module()
class FpnTeacherDistill(BaseModel):
    """A student that learns from the features of a frozen teacher's FPN.

    The teacher runs its backbone and neck, and its head only if a recorder is in it. It is not a
    submodule: it is in no checkpoint, EMA copy or optimizer, and :meth:`detach_teacher` frees it.

    Takes the arguments of MMRazor's algorithm of this name.

    Args:
        architecture (dict | str | BaseModel): The student: a model, or one of the forms that
            :func:`~.detector.resolve_model_cfg` takes.
        teacher (dict | str | BaseModel): The teacher, in the same forms.
        distiller (dict): Config of a :class:`ConfigurableDistiller`.
        teacher_ckpt (str, optional): Path or URL of the teacher's checkpoint, which
            :meth:`init_weights` loads, or ``'random'`` for a teacher that knows nothing.
            Required unless the teacher is a built model.
        data_preprocessor (dict | nn.Module, optional): Defaults to the student's.
        reference (bool): Do MMRazor's arithmetic exactly. By default a faster one runs, of which
            docs/performance.md says how close it comes: a teacher with folded BN, the norms and the
            divergence as one function, and the channels_last memory format. Defaults to False.
        module_inplace (bool): Whether the student's activations may work in place, on what a
            recorder has recorded. Defaults to False.
        teacher_module_inplace (bool): The same for the teacher.
        teacher_trainable, teacher_norm_eval, student_trainable, calculate_student_loss: Accepted at
            MMRazor's defaults, so that its configs carry over; nothing else is meaningful with a
            frozen teacher.
        half_teacher (bool): Accepted as False, so that earlier configs carry over.
        init_cfg (dict, optional): Initialisation, in addition to the student's own.

    Raises:
        ValueError: If the teacher has no checkpoint, a recorder's source is not a module, a
            connector does not fit its features, or the student's head has no loss.
    """

    def __init__(
        self,
        architecture: Union[BaseModel, dict, str],
        teacher: Union[BaseModel, dict, str],
        distiller: dict,
        teacher_ckpt: Optional[str] = None,
        data_preprocessor: Union[dict, nn.Module, None] = None,
        reference: bool = False,
        module_inplace: bool = False,
        teacher_module_inplace: bool = False,
        teacher_trainable: bool = False,
        teacher_norm_eval: bool = True,
        student_trainable: bool = True,
        calculate_student_loss: bool = True,
        half_teacher: bool = False,
        init_cfg: Optional[dict] = None,
    ) -> None:
        for name, value, only in (
            ('teacher_trainable', teacher_trainable, False),
            ('teacher_norm_eval', teacher_norm_eval, True),
            ('student_trainable', student_trainable, True),
            ('calculate_student_loss', calculate_student_loss, True),
            ('half_teacher', half_teacher, False),
        ):
            if value is not only:
                raise UsageError(f'{name}={value!r} is not supported, leave it at {only}')
        student = build_detector(architecture, 'architecture')
        _check_has_loss(student)
        super().__init__(data_preprocessor or student.data_preprocessor, init_cfg)
        self.architecture = student
        self._register_load_state_dict_pre_hook(accept_plain_weights)
        # With the same seed the student starts from the same weights, and sees the same images, as
        # without distillation.
        with preserved_randomness():
            self.distiller = _build_distiller({'reference': reference, **distiller})
            self._teacher = FrozenTeacher(
                teacher,
                teacher_ckpt,
                self.distiller.teacher_sources,
                self.data_preprocessor,
                reference,
            )
            self._warn_of_a_smaller_teacher()
            self._channels_last = not reference
            if self._channels_last:
                to_channels_last(student)
            if not module_inplace:
                _set_inplace_false(student)
            if not teacher_module_inplace:
                _set_inplace_false(self.teacher)
            self._fit_connectors()

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
            return _prefixed('student', self._student_losses(batch_inputs, data_samples))

        teacher_records = self._teacher.record(batch_inputs)
        with record_outputs(self.student, self.distiller.student_sources) as student_records:
            losses = self._student_losses(batch_inputs, data_samples)
        if torch.is_grad_enabled():
            self.distiller.check_gradients(student_records)
        distill_losses = self.distiller.compute_distill_losses(
            student_records, teacher_records, len(batch_inputs)
        )
        return {**_prefixed('student', losses), **_prefixed('distill', distill_losses)}

    def _student_losses(self, batch_inputs: torch.Tensor, data_samples) -> dict[str, torch.Tensor]:
        try:
            return self.student(batch_inputs, data_samples, mode='loss')
        except NotImplementedError as error:
            # An operator that this mmcv does not have.
            raise UsageError(f"the student can't be trained here: {error}") from error

    @torch.no_grad()
    def record_features(self, batch_inputs: torch.Tensor) -> tuple[Records, Records]:
        """Record what distillation compares, without a training step.

        Args:
            batch_inputs (Tensor): Preprocessed images, (N, 3, H, W).

        Returns:
            tuple[Records, Records]: The student's features and the teacher's, none once it is
            detached.
        """
        sources = self.distiller.student_sources
        student_records = record_features(self.student, batch_inputs, sources)
        if self.distillation_stopped:
            return student_records, {}
        return student_records, self._teacher.record(batch_inputs)

    def init_weights(self) -> None:
        """Initialise the student and load the teacher's checkpoint.

        With one seed the student gets the weights that it gets without a distillation.

        Raises:
            ValueError: If the teacher's checkpoint can't be read or does not fit.
        """
        with _contiguous(self.student):
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
        self.distiller.zero_grad(set_to_none=True)

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

    @property
    def bbox_head(self) -> nn.Module:
        """The student's head, where a detector's hooks such as YOLOXModeSwitchHook expect it."""
        return self.student.bbox_head

    def _apply(self, fn, *args, **kwargs):
        # The teacher follows the student to another device or dtype.
        super()._apply(fn, *args, **kwargs)
        if not self.distillation_stopped:
            self.teacher._apply(fn, *args, **kwargs)
        return self

    @torch.no_grad()
    def _fit_connectors(self) -> None:
        """Fit the connectors on two small grey images, and find what does not fit."""
        sources = self.distiller.student_sources
        check_sources(self.student, sources, 'student')
        # Two images: a norm needs more than the one position that is left at stride 64.
        probe = next(self.student.parameters()).new_zeros(2, 3, _PROBE_SIZE, _PROBE_SIZE)
        with evaluating(self):
            student_records = record_features(self.student, probe, sources)
            teacher_records = self._teacher.probe(probe)
            for owner, records in (('student', student_records), ('teacher', teacher_records)):
                silent = [name for name, outputs in records.items() if not outputs]
                if silent:
                    raise UsageError(
                        f'recorders {silent} of the {owner} record nothing while its backbone and '
                        'neck run; choose sources inside these two, or in the bbox_head'
                    )
            self.distiller.fit_connectors(student_records, teacher_records)
        for line in self.distiller.describe():
            print_log(line, logger='current')

    def _warn_of_a_smaller_teacher(self) -> None:
        student, teacher = (
            sum(
                parameter.numel()
                for name, parameter in model.named_parameters()
                if name.split('.')[0] in FEATURE_PARTS
            )
            for model in (self.student, self.teacher)
        )
        if teacher < student:
            print_log(
                f'the teacher has {teacher / 1e6:.2f} million parameters in backbone and neck and '
                f'its student {student / 1e6:.2f} million: a smaller teacher rarely has '
                'anything to teach; are architecture and teacher the wrong way round?',
                logger='current',
                level=logging.WARNING,
            )


def _build_distiller(cfg: dict) -> ConfigurableDistiller:
    cfg = {'_scope_': SCOPE, **cfg}
    named = model_class(cfg)
    if named is not None and not issubclass(named, ConfigurableDistiller):
        raise UsageError(
            f'distiller is a {named.__module__} class; this algorithm needs '
            'type="rtm_kd.ConfigurableDistiller", which takes the same arguments'
        )
    return MODELS.build(cfg)


def _check_has_loss(student: nn.Module) -> None:
    """Raise if the head, like that of MMYOLO's RTMDet-Ins, predicts but has no loss."""
    head = getattr(student, 'bbox_head', None)
    code = getattr(getattr(type(head), 'loss_by_feat', None), '__code__', None)
    if code is not None and code.co_names == ('NotImplementedError',):
        package = type(head).__module__.split('.')[0]
        raise UsageError(
            f"the student can't be trained: {package} ships its {type(head).__name__} without a "
            'loss; MMDetection can train RTMDet-Ins, mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'
        )


def _prefixed(prefix: str, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f'{prefix}.{name}': loss for name, loss in losses.items()}


@contextmanager
def _contiguous(model: nn.Module) -> Iterator[None]:
    """Hold the weights contiguous while the context is open.

    Random initialisation fills storage order, so channels_last would change the weights of a given
    seed. The storage is put back at the end, because MMYOLO's EMA already references it.
    """
    others = [parameter for parameter in model.parameters() if not parameter.is_contiguous()]
    homes = [parameter.data for parameter in others]
    for parameter in others:
        parameter.data = parameter.data.contiguous()
    try:
        yield
    finally:
        for parameter, home in zip(others, homes):
            home.copy_(parameter.data)
            parameter.data = home


def _set_inplace_false(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
