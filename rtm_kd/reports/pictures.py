"""What the detectors of some runs find, and where they attend, on validation images."""

import contextlib
import copy
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.fileio import exists, get
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings, track_iter_progress
from torch import nn

from rtm_kd.models.algorithms.detector import FEATURE_PARTS, build_detector
from rtm_kd.models.distillation import Distillation, use_student
from rtm_kd.models.distillers import expand
from rtm_kd.models.distillers.recorder import check_sources, record_outputs
from rtm_kd.registry import DATASETS, MODELS
from rtm_kd.utils.checkpoint import (
    check_state_dict,
    from_mmdet_names,
    read_checkpoint,
    student_state_dict,
)
from rtm_kd.utils.errors import UsageError

from .attention import (
    agreement,
    attention_maps,
    compared_recorders,
    draw_attention,
    without_padding,
)
from .detections import Detections, Objects, best_score_thr, ground_truth, match, num_disagreements
from .page import image_uri
from .work_dir import Run, WorkDir

# For each image shown so many are searched for the worst, spread over the validation set.
_SEARCHED = 20
# Longer side of the pictures on a page, in pixels.
_PHOTO_SIZE, _MAP_SIZE = 640, 320


class Box(NamedTuple):
    """A box to draw: its corner and size in pixels of the photograph, what it is, and how."""

    x: float
    y: float
    width: float
    height: float
    label: int
    text: str
    kind: str  # 'truth', 'right', 'wrong' or 'missed'


class Panel(NamedTuple):
    """A photograph with the boxes of one model, or of the ground truth."""

    title: str
    colour: str
    caption: str
    boxes: list[Box]


class Picture(NamedTuple):
    """A model's attention over the photograph."""

    title: str
    colour: str
    uri: str


class Maps(NamedTuple):
    """What the models attend to at one level of the FPN."""

    level: str
    pictures: list[Picture]


class Photo(NamedTuple):
    """A photograph, what is found on it, and what is attended to."""

    name: str
    uri: str
    width: int
    height: int
    panels: list[Panel]
    maps: list[Maps]


class Pictures(NamedTuple):
    """All pictures of a page.

    Args:
        photos (list[Photo]): The worst first.
        agreements (dict): Level -> title of a model -> how its attention agrees with the
            teacher's, see :func:`~rtm_kd.reports.attention.agreement`.
        classes (dict[int, str]): The classes that the boxes have.
        searched (int): Images among which the worst were looked for.
        notes (list[str]): Sentences on what could not be shown, and why.
    """

    photos: list[Photo]
    agreements: dict[str, dict[str, Optional[float]]]
    classes: dict[int, str]
    searched: int
    notes: list[str]


class _Model(NamedTuple):
    role: str  # 'student', 'before' or 'teacher'
    title: str
    colour: str
    model: nn.Module
    dataset: '_Dataset'
    detects: bool
    sources: dict[str, str]


class _Dataset:
    """The validation set of a run, by the ids of its images."""

    def __init__(self, cfg: Config) -> None:
        dataset = cfg.val_dataloader.dataset
        root = dataset.get('data_root')
        # A dataset that draws itself would draw itself here.
        if root and '://' not in root and not os.path.exists(root):
            raise UsageError(f'the data in {root} are not there, seen from {os.getcwd()}')
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how it goes
            self.dataset = DATASETS.build(dataset)
        self.classes = tuple(self.dataset.metainfo['classes'])
        self.indices = {
            self.dataset.get_data_info(i)['img_id']: i for i in range(len(self.dataset))
        }

    def info(self, img_id: Any) -> dict:
        return self.dataset.get_data_info(self.indices[img_id])

    def sample(self, img_id: Any) -> dict:
        return self.dataset[self.indices[img_id]]


def take_pictures(runs: Sequence[Run], num_images: int, device: str) -> Pictures:
    """Let the detectors of some runs look at validation images.

    These are the students of all runs, and of the first run that distils also its teacher and
    its student as it was before training. Whatever is not there any more is left out.

    Args:
        runs (Sequence[Run]): The images are those of the first one whose data are there.
        num_images (int): Images to show; those on which the students and the ground truth
            disagree most.
        device (str): Where the detectors run, ``'cpu'`` or ``'cuda:0'`` for example.

    Returns:
        Pictures: Without photos where nothing can be shown; the notes say why.
    """
    notes: list[str] = []
    with _quiet(), _noted(notes, 'There are no pictures'):
        models = _models(runs, device, notes)
        if any(model.detects or model.sources for model in models):
            return _pictures(models, num_images, notes)
    return Pictures([], {}, {}, 0, notes)


def _pictures(models: Sequence[_Model], num_images: int, notes: list[str]) -> Pictures:
    dataset = models[0].dataset
    ids = list(dataset.indices)
    searched = min(len(ids), num_images * _SEARCHED)
    ids = [ids[i] for i in np.linspace(0, len(ids) - 1, searched).round().astype(int)]
    missing = [img_id for img_id in ids if not exists(dataset.info(img_id)['img_path'])]
    if missing:
        notes.append(
            f'{len(missing)} of {searched} validation images are not there, '
            f'{dataset.info(missing[0])["img_path"]} for one.'
        )
        ids = [img_id for img_id in ids if img_id not in missing]
    truths = {img_id: ground_truth(dataset.info(img_id)) for img_id in ids}
    seen = _look(models, truths)
    found = {}
    for model in models:
        if model.detects and ids:
            every = {img_id: seen[model.title][img_id].detections for img_id in ids}
            score_thr = best_score_thr(list(every.values()), list(truths.values()))
            found[model.title] = (
                score_thr,
                {img_id: detections.from_score(score_thr) for img_id, detections in every.items()},
            )
    ids.sort(key=lambda img_id: _merit(models, found, truths[img_id], img_id))
    photos = [_photo(models, img_id, truths[img_id], found, seen) for img_id in ids[:num_images]]
    labels = {box.label for photo in photos for panel in photo.panels for box in panel.boxes}
    return Pictures(
        photos,
        _agreements(models, seen),
        {label: dataset.classes[label] for label in sorted(labels)},
        len(ids),
        notes,
    )


def _merit(
    models: Sequence[_Model], found: dict[str, '_Found'], truth: Objects, img_id: Any
) -> tuple[int, int]:
    """Order images by the students' mistakes, the most first, of equal ones by the teacher's."""
    mistakes = {
        role: sum(
            sum(num_disagreements(found[model.title][1][img_id], truth))
            for model in models
            if model.role == role and model.detects
        )
        for role in ('student', 'teacher')
    }
    return -mistakes['student'], mistakes['teacher']


def _models(runs: Sequence[Run], device: str, notes: list[str]) -> list[_Model]:
    """Build students, teacher and the untrained student, all that can be built."""
    distilling = next((run for run in runs if run.work_dir.distils), None)
    levels = {}
    if distilling is not None:
        with _noted(notes, 'There are no pictures of attention'):
            levels = _levels(expand(distilling.work_dir.cfg.model.distiller))
    students = {level: student for level, (student, _) in levels.items()}
    teachers = {level: teacher for level, (_, teacher) in levels.items()}
    datasets: dict[str, _Dataset] = {}
    models = []
    title = 'teacher'
    for run in runs:
        if distilling is not None and run.work_dir.taught(distilling.work_dir):
            title = run.title
            continue
        if run.title == 'teacher':
            title = "the students' teacher"
        with _noted(notes, f'There are no pictures of "{run.title}"'):
            dataset = _dataset(run, datasets)
            model = _trained_student(run.work_dir).to(device).eval()
            sources = _known(model, students, 'student')
            models.append(_Model('student', run.title, run.colour, model, dataset, True, sources))
    dataset = datasets.get(distilling.title) if distilling is not None else None
    if dataset is None:
        return models
    with _noted(notes, 'There are no pictures of the student before distillation'):
        model = _untrained_student(distilling.work_dir).to(device).eval()
        before = f'{distilling.title}, before'
        models.append(_Model('before', before, 'muted', model, dataset, False, students))
    with _noted(notes, 'There are no pictures of the teacher'):
        model, detects = _teacher(distilling.work_dir.cfg, len(dataset.classes), notes)
        model = model.to(device).eval()
        models.append(_Model('teacher', title, 'teacher', model, dataset, detects, teachers))
    for run in runs:
        other = run.work_dir.teacher_ckpt
        if other not in (None, distilling.work_dir.teacher_ckpt):
            notes.append(
                f'{run.title} has another teacher, {other}; shown is the one of {distilling.title}.'
            )
    return models


def _dataset(run: Run, datasets: dict[str, _Dataset]) -> _Dataset:
    if run.work_dir.cfg is None:
        raise UsageError(f'no config can be read in {run.work_dir.path}')
    if run.title not in datasets:
        dataset = _Dataset(run.work_dir.cfg)
        first = next(iter(datasets.values()), dataset)
        if (dataset.classes, set(dataset.indices)) != (first.classes, set(first.indices)):
            raise UsageError(f'its classes or its images are others than those of {min(datasets)}')
        datasets[run.title] = dataset
    return datasets[run.title]


def _levels(distiller: dict) -> dict[str, tuple[str, str]]:
    """Level -> module of the student, module of the teacher."""
    return {
        student: (
            distiller['student_recorders'][student]['source'],
            distiller['teacher_recorders'][teacher]['source'],
        )
        for student, teacher in compared_recorders(distiller['loss_forward_mappings']).items()
    }


def _known(model: nn.Module, sources: dict[str, str], owner: str) -> dict[str, str]:
    """The sources, none if the model is of another kind."""
    try:
        check_sources(model, sources, owner)
    except UsageError:
        return {}
    return sources


def _build_student(cfg: Config) -> nn.Module:
    student = copy.deepcopy(cfg)
    use_student(student)
    model = student.model
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return MODELS.build(model)


def _trained_student(work_dir: WorkDir) -> nn.Module:
    model = _build_student(work_dir.cfg)
    content, checkpoint = work_dir.read_checkpoint()
    state_dict = student_state_dict(content['state_dict'])
    check_state_dict(state_dict, model.state_dict(), str(checkpoint), 'the model of the config')
    model.load_state_dict(state_dict)
    return model


def _untrained_student(work_dir: WorkDir) -> nn.Module:
    seed = (work_dir.cfg.get('randomness') or {}).get('seed') or 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build_student(work_dir.cfg)
        model.init_weights()
    if work_dir.load_from:
        content = read_checkpoint(work_dir.load_from)
        # As loosely as MMEngine loads it: a head of other classes starts anew.
        own = model.state_dict()
        fitting = {
            name: tensor
            for name, tensor in student_state_dict(content['state_dict']).items()
            if name in own and own[name].shape == tensor.shape
        }
        model.load_state_dict(fitting, strict=False)
    return model


def _teacher(cfg: Config, num_classes: int, notes: list[str]) -> tuple[nn.Module, bool]:
    """Return the whole teacher, and whether it can detect what the student is to detect."""
    distillation = Distillation.of(cfg)
    if not distillation.teacher_is_trained:
        raise UsageError('it has no checkpoint; its weights were random')
    checkpoint = distillation.teacher_ckpt
    model = build_detector(distillation.teacher, 'teacher')
    state_dict = from_mmdet_names(read_checkpoint(checkpoint)['state_dict'])
    own = model.state_dict()
    parts = [
        {name: value for name, value in values.items() if name.split('.')[0] in FEATURE_PARTS}
        for values in (state_dict, own)
    ]
    check_state_dict(*parts, checkpoint, 'the teacher')
    model.load_state_dict(parts[0], strict=False)
    head = getattr(model, 'bbox_head', None)
    with _noted(notes, "There are no detections of the teacher's"):
        if getattr(head, 'num_classes', num_classes) != num_classes:
            raise UsageError(f'it has {head.num_classes} classes, and the data have {num_classes}')
        check_state_dict(state_dict, own, checkpoint, 'the whole teacher')
        model.load_state_dict(state_dict)
        return model, True
    return model, False


class _Seen(NamedTuple):
    """What a model made of an image."""

    detections: Optional[Detections]
    attention: dict[str, torch.Tensor]  # level -> (1, h, w)
    input_shape: tuple[int, int]
    data_sample: DetDataSample


# From which score on a model's detections are shown, and id of the image -> those detections.
_Found = tuple[float, dict[Any, Detections]]


@torch.no_grad()
def _look(models: Sequence[_Model], truths: dict[Any, Objects]) -> dict[str, dict[Any, _Seen]]:
    """Return title of the model -> id of the image -> what it made of it."""
    seen: dict[str, dict[Any, _Seen]] = {model.title: {} for model in models}
    steps = [(model, img_id) for model in models for img_id in truths]
    for model, img_id in track_iter_progress(steps) if sys.stdout.isatty() else steps:
        data = model.model.data_preprocessor(pseudo_collate([model.dataset.sample(img_id)]), False)
        inputs, data_samples = data['inputs'], data['data_samples']
        detections = None
        with record_outputs(model.model, model.sources) as records:
            if model.detects:
                data_samples = model.model(**data, mode='predict')
                detections = match(data_samples[0].pred_instances, truths[img_id])
            elif model.sources:
                model.model.extract_feat(inputs)
        seen[model.title][img_id] = _Seen(
            detections, attention_maps(records), tuple(inputs.shape[-2:]), data_samples[0]
        )
    return seen


def _agreements(
    models: Sequence[_Model], seen: dict[str, dict[Any, _Seen]]
) -> dict[str, dict[str, Optional[float]]]:
    teacher = next((model for model in models if model.role == 'teacher' and model.sources), None)
    if teacher is None:
        return {}
    result: dict[str, dict[str, Optional[float]]] = {}
    for model in _by_age(models):
        for level in model.sources if model is not teacher else ():
            values = [
                agreement(of_model.attention[level], of_teacher.attention[level])
                for of_model, of_teacher in zip(
                    seen[model.title].values(), seen[teacher.title].values()
                )
                if level in of_model.attention and level in of_teacher.attention
            ]
            values = [value for value in values if value is not None]
            mean = sum(values) / len(values) if values else None
            result.setdefault(level, {})[model.title] = mean
    return result


def _by_age(models: Sequence[_Model]) -> list[_Model]:
    """Those that attend: the teacher, the untrained student, then the trained ones."""
    order = ('teacher', 'before', 'student')
    return sorted(
        (model for model in models if model.sources), key=lambda model: order.index(model.role)
    )


def _photo(
    models: Sequence[_Model],
    img_id: Any,
    truth: Objects,
    found: dict[str, '_Found'],
    seen: dict[str, dict[Any, _Seen]],
) -> Photo:
    dataset = models[0].dataset
    path = dataset.info(img_id)['img_path']
    image = mmcv.imfrombytes(get(path), channel_order='rgb')
    scale = min(1.0, _PHOTO_SIZE / max(image.shape[:2]))
    image = mmcv.imrescale(image, scale) if scale < 1 else image
    panels = [_truth_panel(truth, scale, dataset.classes)]
    for model in models:
        if model.detects:
            score_thr, detections = found[model.title]
            panels.append(
                _panel(model, detections[img_id], truth, scale, dataset.classes, score_thr)
            )
    small = mmcv.imrescale(image, (_MAP_SIZE, _MAP_SIZE))
    maps: dict[str, list[Picture]] = {}
    for model in _by_age(models):
        of_image = seen[model.title][img_id]
        for level, attention in of_image.attention.items():
            # As multiples of an even spread, on the photograph without padding.
            multiples = (attention[0] * attention[0].numel()).numpy()
            multiples = without_padding(multiples, of_image.input_shape, of_image.data_sample)
            uri = image_uri(draw_attention(small, multiples))
            maps.setdefault(level, []).append(Picture(model.title, model.colour, uri))
    height, width = image.shape[:2]
    return Photo(
        os.path.basename(path),
        image_uri(image),
        width,
        height,
        panels,
        [Maps(level, pictures) for level, pictures in maps.items()],
    )


def _truth_panel(truth: Objects, scale: float, classes: tuple) -> Panel:
    boxes = [
        _box(bbox, label, scale, classes[label], 'truth')
        for bbox, label in zip(truth.bboxes, truth.labels)
    ]
    return Panel('ground truth', 'ink', f'objects: {len(boxes)}', boxes)


def _panel(
    model: _Model,
    detections: Detections,
    truth: Objects,
    scale: float,
    classes: tuple,
    score_thr: float,
) -> Panel:
    boxes = [
        _box(bbox, label, scale, f'{classes[label]} {score:.2f}', 'right' if hit >= 0 else 'wrong')
        for bbox, label, score, hit in zip(*detections)
    ]
    boxes += [
        _box(
            truth.bboxes[i], truth.labels[i], scale, f'{classes[truth.labels[i]]}, missed', 'missed'
        )
        for i in sorted({*range(len(truth.bboxes))} - {*detections.partners.tolist()})
    ]
    missed, wrong = num_disagreements(detections, truth)
    caption = f'{missed} missed, {wrong} not there; scores from {score_thr:.2f}'
    return Panel(model.title, model.colour, caption, boxes)


def _box(bbox: np.ndarray, label: int, scale: float, text: str, kind: str) -> Box:
    x1, y1, x2, y2 = (round(float(value) * scale, 1) for value in bbox)
    # An untrained model's right side may lie left of the left one.
    width, height = (max(0.0, round(side, 1)) for side in (x2 - x1, y2 - y1))
    return Box(x1, y1, width, height, int(label), text, kind)


@contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    """Turn an error into a sentence on the page; the rest of it is worth having."""
    try:
        yield
    except Exception as error:  # what a model or dataset of the user's own raises
        if sys.flags.dev_mode:
            raise
        reason = ' '.join(str(error).split())
        if not isinstance(error, UsageError):
            reason = f'{type(error).__name__}: {reason}'
        notes.append(f'{what}: {reason}.')


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MMEngine from logging how each weight was initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
