"""Detectors of some runs, and what they make of validation images."""

import copy
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmengine.utils import import_modules_from_strings
from torch import nn

from rtm_kd.models.algorithms.detector import FEATURE_PARTS, build_detector
from rtm_kd.models.distillation import Distillation, use_student
from rtm_kd.models.distillers import expand
from rtm_kd.models.distillers.recorder import check_sources, record_outputs
from rtm_kd.registry import DATASETS, MODELS
from rtm_kd.utils.checkpoint import (
    check_state_dict,
    from_mmdet_names,
    load_detector,
    read_checkpoint,
    student_state_dict,
)
from rtm_kd.utils.errors import UsageError

from .attention import attention_maps, compared_recorders
from .detections import Detections, Objects, match
from .work_dir import WorkDir


class ValidationSet:
    """The validation images of a run, by their ids."""

    def __init__(self, cfg: Config) -> None:
        dataset = cfg.val_dataloader.dataset
        root = dataset.get('data_root')
        # A dataset that draws itself would do so here.
        if root and '://' not in root and not os.path.exists(root):
            raise UsageError(f'there is no data_root {root}, seen from {os.getcwd()}')
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        with redirect_stdout(io.StringIO()):  # pycocotools reports its progress
            self.dataset = DATASETS.build(dataset)
        self.classes = tuple(self.dataset.metainfo['classes'])
        infos = map(self.dataset.get_data_info, range(len(self.dataset)))
        self.indices = {info['img_id']: i for i, info in enumerate(infos)}

    def info(self, img_id: Any) -> dict:
        """Return the path and the annotations of an image."""
        return self.dataset.get_data_info(self.indices[img_id])


class Observation(NamedTuple):
    """What a detector made of an image."""

    detections: Optional[Detections]
    attention: dict[str, torch.Tensor]  # level -> (1, h, w)
    input_shape: tuple[int, int]
    data_sample: DetDataSample


@dataclass
class Detector:
    """A detector of a run, and its observations by the id of the image."""

    role: str  # 'student', 'before' (training) or 'teacher'
    title: str
    colour: str
    model: nn.Module  # in eval mode
    images: ValidationSet  # prepared as this detector needs them
    sources: dict[str, str]  # level of the FPN -> module whose attention is shown
    detects: bool = True  # whether its detections are shown,
    score_thr: float = 0.0  # and from which score on
    observations: dict[Any, Observation] = field(default_factory=dict)

    @torch.no_grad()
    def observe(self, img_id: Any, truth: Objects) -> None:
        """Run the detector on an image with a ground truth."""
        sample = self.images.dataset[self.images.indices[img_id]]
        data = self.model.data_preprocessor(pseudo_collate([sample]), False)
        inputs, data_samples = data['inputs'], data['data_samples']
        detections = None
        with record_outputs(self.model, self.sources) as records:
            if self.detects:
                data_samples = self.model(**data, mode='predict')
                detections = match(data_samples[0].pred_instances, truth)
            elif self.sources:
                self.model.extract_feat(inputs)
        self.observations[img_id] = Observation(
            detections, attention_maps(records), tuple(inputs.shape[-2:]), data_samples[0]
        )

    def detections(self, img_id: Any) -> Detections:
        """Return the detections of an image that are shown."""
        return self.observations[img_id].detections.from_score(self.score_thr)


def build_detectors(runs: Sequence[WorkDir], device: str, notes: list[str]) -> list[Detector]:
    """Build the detectors of some runs that can be built.

    These are the students of all runs, and the teacher and the student before training of the
    first run that distils; a run whose checkpoint is that teacher is not a student. ``notes`` gets
    a sentence on each detector that can't be built.
    """
    distilling = next((run for run in runs if run.distils), None)
    students: dict[str, str] = {}
    teachers: dict[str, str] = {}
    if distilling is not None:
        with noted(notes, 'There are no pictures of attention'):
            students, teachers = _compared_sources(distilling.cfg.model.distiller)
    detectors: list[Detector] = []
    images: dict[str, ValidationSet] = {}
    title = 'teacher'
    for run in runs:
        if distilling is not None and run.taught(distilling):
            title = run.title
            continue
        if run.title == 'teacher':
            title = "the students' teacher"
        with noted(notes, f'There are no pictures of "{run.title}"'):
            own = images[run.title] = _validation_set(run, images)
            model = _trained_student(run).to(device).eval()
            detectors.append(Detector('student', run.title, run.colour, model, own, {}))
            with suppress(UsageError):  # a model of another kind
                check_sources(model, students, 'student')
                detectors[-1].sources = students
    if distilling is None or distilling.title not in images:
        return detectors
    own = images[distilling.title]
    with noted(notes, 'There are no pictures of the student before distillation'):
        model = _untrained_student(distilling).to(device).eval()
        before = f'{distilling.title}, before'
        detectors.append(Detector('before', before, 'muted', model, own, students, detects=False))
    with noted(notes, 'There are no pictures of the teacher'):
        model, detects = _teacher(distilling.cfg, len(own.classes), notes)
        model = model.to(device).eval()
        detectors.append(Detector('teacher', title, 'teacher', model, own, teachers, detects))
    for run in runs:
        other = run.teacher_ckpt
        if other not in (None, distilling.teacher_ckpt):
            notes.append(
                f'{run.title} has another teacher, {other}; shown is the one of {distilling.title}.'
            )
    return detectors


def _compared_sources(distiller: dict) -> tuple[dict[str, str], dict[str, str]]:
    """Return level -> module of the student, and level -> module of the teacher."""
    distiller = expand(distiller)
    students, teachers = distiller['student_recorders'], distiller['teacher_recorders']
    pairs = compared_recorders(distiller['loss_forward_mappings'])
    return (
        {student: students[student]['source'] for student in pairs},
        {student: teachers[teacher]['source'] for student, teacher in pairs.items()},
    )


def _validation_set(work_dir: WorkDir, others: dict[str, ValidationSet]) -> ValidationSet:
    if work_dir.cfg is None:
        raise UsageError(f'no config can be read in {work_dir.path}')
    images = ValidationSet(work_dir.cfg)
    for title, other in others.items():
        if (images.classes, {*images.indices}) != (other.classes, {*other.indices}):
            raise UsageError(f'its classes or images differ from those of "{title}"')
    return images


def _build_student(cfg: Config) -> nn.Module:
    student = copy.deepcopy(cfg)
    use_student(student)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return MODELS.build(student.model)


def _trained_student(work_dir: WorkDir) -> nn.Module:
    model = _build_student(work_dir.cfg)
    content, checkpoint = work_dir.read_checkpoint()
    load_detector(model, student_state_dict(content['state_dict']), str(checkpoint))
    return model


def _untrained_student(work_dir: WorkDir) -> nn.Module:
    seed = (work_dir.cfg.get('randomness') or {}).get('seed') or 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build_student(work_dir.cfg)
        model.init_weights()
    if work_dir.load_from:
        weights = student_state_dict(read_checkpoint(work_dir.load_from)['state_dict'])
        # As leniently as the run did: a head of other classes keeps its random weights.
        load_state_dict(model, weights, logger='silent')
    return model


def _teacher(cfg: Config, num_classes: int, notes: list[str]) -> tuple[nn.Module, bool]:
    """Return the teacher, and whether its head fits the classes of the data."""
    distillation = Distillation.of(cfg)
    if not distillation.teacher_is_trained:
        raise UsageError('it has no checkpoint; its weights were random')
    checkpoint = distillation.teacher_ckpt
    model = build_detector(distillation.teacher, 'teacher')
    own = model.state_dict()
    state_dict = from_mmdet_names(read_checkpoint(checkpoint)['state_dict'], own)
    parts = [
        {name: value for name, value in values.items() if name.split('.')[0] in FEATURE_PARTS}
        for values in (state_dict, own)
    ]
    check_state_dict(*parts, checkpoint, 'the teacher')
    model.load_state_dict(parts[0], strict=False)
    head = getattr(model, 'bbox_head', None)
    with noted(notes, 'There are no detections of the teacher'):
        if getattr(head, 'num_classes', num_classes) != num_classes:
            raise UsageError(f'it has {head.num_classes} classes, and the data have {num_classes}')
        check_state_dict(state_dict, own, checkpoint, 'the whole teacher')
        model.load_state_dict(state_dict)
        return model, True
    return model, False


@contextmanager
def noted(notes: list[str], what: str) -> Iterator[None]:
    """Turn an error into a note on the page, which is worth having without this part."""
    try:
        yield
    except Exception as error:  # from a user's own model or dataset
        if sys.flags.dev_mode:
            raise
        reason = ' '.join(str(error).split())
        if not isinstance(error, UsageError):
            reason = f'{type(error).__name__}: {reason}'
        notes.append(f'{what}: {reason}.')
