"""Configs of one's own, from the hand-written ones and what stands at their top."""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config
from mmengine.hub import get_config

from rtm_kd.compat.config_text import inert
from rtm_kd.datasets.prepare import PreparedData
from rtm_kd.utils.errors import UsageError

# The recipes whose distilled weights MMYOLO has published, see configs/metafile.yml.
_RECIPES = dict(tiny='kd_tiny_rtmdet_s', s='kd_s_rtmdet_m', m='kd_m_rtmdet_l', l='kd_l_rtmdet_x')
SIZES = ('tiny', 's', 'm', 'l', 'x')
# What is usual for some hundred to some thousand images, at batches of 4 to 32.
_ITERATIONS = 5000
_EPOCHS = (50, 300)
_BATCH_SIZE = 8
# The published recipe: its learning rate, for the images of a step, and its warm-up in steps.
_BASE_LR, _BASE_BATCH_SIZE, _BASE_WARMUP = 0.004, 256, 1000


@dataclass
class Schedule:
    """How long, in what portions and how fast to train.

    Attributes:
        batch_size (int): Images of a step.
        epochs (int): Passes over the data.
        base_lr (float): Learning rate after the warm-up.
        warmup_iters (int): Steps of the warm-up.
        num_epochs_stage2 (int): Last epochs, without mosaic and without distillation.
        val_interval (int): Epochs from one evaluation to the next.
    """

    batch_size: int
    epochs: int
    base_lr: float
    warmup_iters: int
    num_epochs_stage2: int
    val_interval: int


def choose_schedule(
    num_images: int,
    batch_size: Optional[int] = None,
    epochs: Optional[int] = None,
    base_lr: Optional[float] = None,
    pretrained: bool = False,
) -> Schedule:
    """Choose what the user leaves open by how many images there are.

    Args:
        num_images (int): Images to train on.
        batch_size (int, optional): Defaults to 8, or down to 2 where that would leave fewer
            than four steps an epoch.
        epochs (int, optional): Defaults to what makes 5000 steps, half of it for a model that
            does not start from scratch, and from 50 to 300.
        base_lr (float, optional): Defaults to the published recipe's, by the square root of
            the batch size, or by the batch size for a model that does not start from scratch.
        pretrained (bool): Whether the model starts from a detector's weights.

    Raises:
        ValueError: If there are fewer images than a batch.
    """
    if batch_size is None:
        batch_size = min(_BATCH_SIZE, 2 ** int(math.log2(max(num_images // 4, 2))), num_images)
    if batch_size > num_images:
        raise UsageError(
            f'--batch-size {batch_size} is more than the {num_images} images that there are to '
            f'train on; choose at most {num_images}'
        )
    iterations = math.ceil(num_images / batch_size)
    if epochs is None:
        whole = _ITERATIONS // 2 if pretrained else _ITERATIONS
        epochs = min(max(math.ceil(whole / iterations), _EPOCHS[0]), _EPOCHS[1])
    if base_lr is None:
        share = batch_size / _BASE_BATCH_SIZE
        # From scratch by the square root, as for Adam (Malladi et al., "On the SDEs and Scaling
        # Rules for Adaptive Gradient Algorithms", NeurIPS 2022): a short run gets nowhere at a
        # rate that goes down with the batch itself, which is what MMYOLO's fine-tuning does.
        base_lr = float(f'{_BASE_LR * (share if pretrained else math.sqrt(share)):.2g}')
    return Schedule(
        batch_size=batch_size,
        epochs=epochs,
        base_lr=base_lr,
        # A twentieth of the run, and over before the learning rate begins to fall.
        warmup_iters=min(_BASE_WARMUP, math.ceil(epochs * iterations / 20)),
        num_epochs_stage2=min(math.ceil(epochs / 10), 20) if epochs > 1 else 0,
        val_interval=max(epochs // 10, 1),
    )


class _Beside(str):
    """Name of a file that lies beside the config."""

    def __repr__(self) -> str:
        return repr('{{ fileDirname }}/' + self)


@dataclass
class ConfigPaths:
    """Where the configs of a teacher, of its student and of the distillation are."""

    teacher: Path
    student: Path
    distillation: Path


def config_paths(folder: Path, student: str, teacher: str, name: str) -> ConfigPaths:
    """Return the configs' paths, named as the published ones are.

    Args:
        folder (Path): Where they are.
        student, teacher (str): Sizes, of ``'tiny'``, ``'s'``, ``'m'``, ``'l'`` and ``'x'``.
        name (str): Of the data.
    """
    name = re.sub(r'[^\w-]+', '_', name)
    # A student of its teacher's size must not take its teacher's name.
    suffix = '_student' if student == teacher else ''
    return ConfigPaths(
        folder / f'rtmdet_{teacher}_{name}.py',
        folder / f'rtmdet_{student}_{name}{suffix}.py',
        folder / f'kd_{student}_rtmdet_{teacher}_{name}.py',
    )


def render_configs(
    paths: ConfigPaths,
    data: PreparedData,
    schedule: Schedule,
    student_epochs: int,
    student: str,
    teacher: str,
    teacher_ckpt: str,
    templates: Path,
    img_size: int = 640,
    num_workers: int = 2,
    teacher_start: Optional[str] = None,
    student_start: Optional[str] = None,
) -> dict[Path, str]:
    """Return the texts of the configs of a teacher, of its student and of the distillation.

    Each is its template with other values at the top.

    Args:
        paths (ConfigPaths): Where they are going to be.
        data (PreparedData): What to train on.
        schedule (Schedule): Of the teacher; the student's differs in the epochs.
        student_epochs (int): Of the student, with and without its teacher.
        student, teacher (str): Sizes.
        teacher_ckpt (str): Path or URL of the teacher's weights.
        templates (Path): The folder ``configs/custom_dataset``.
        img_size (int): Side of the square that the model sees, in pixels.
        num_workers (int): Processes that load images.
        teacher_start, student_start (str, optional): Weights that their training starts from.
    """
    return {
        paths.teacher: render(
            templates / 'rtmdet_teacher.py',
            f'RTMDet-{teacher}: the teacher, and the data and the schedule that its student shares.'
            '\nWritten by tools/distill.py, and from here on yours.',
            dict(
                _base_=_package_path(teacher),
                data_root=data.data_root,
                train_ann_file=data.train_ann_file,
                train_data_prefix=data.train_data_prefix,
                val_ann_file=data.val_ann_file,
                val_data_prefix=data.val_data_prefix,
                class_names=tuple(data.class_names),
                img_scale=(img_size, img_size),
                train_batch_size_per_gpu=schedule.batch_size,
                train_num_workers=num_workers,
                max_epochs=schedule.epochs,
                num_epochs_stage2=schedule.num_epochs_stage2,
                base_lr=schedule.base_lr,
                val_interval=schedule.val_interval,
                load_from=teacher_start,
                train_on_background=data.train_on_background,
                lr_warmup_iters=schedule.warmup_iters,
                **_augmentation(teacher, data.num_train_images),
            ),
        ),
        paths.student: render(
            templates / 'rtmdet_student.py',
            f'RTMDet-{student} on the data of {paths.teacher.name}: the student, undistilled.',
            dict(
                _base_=f'./{paths.teacher.name}',
                max_epochs=student_epochs,
                load_from=student_start,
                deepen_factor=_published(student).deepen_factor,
                widen_factor=_published(student).widen_factor,
                **_augmentation(student, data.num_train_images),
            ),
        ),
        paths.distillation: render(
            templates / 'kd_student_teacher.py',
            f'The student of {paths.student.name}, distilled from the teacher of '
            f'{paths.teacher.name}.',
            dict(
                _base_=f'./{paths.student.name}',
                teacher=_Beside(paths.teacher.name),
                teacher_ckpt=teacher_ckpt,
            ),
        ),
    }


def changed_configs(texts: dict[Path, str], overwrite: bool) -> list[Path]:
    """Return the paths whose files do not hold these texts yet.

    Raises:
        ValueError: If one holds another text, and is not to be overwritten.
    """
    changed = [path for path, text in texts.items() if _text_of(path) != text]
    for path in changed:
        if path.exists() and not overwrite:
            raise UsageError(
                f'{path} is there, and is not what this command would write '
                f'({_first_difference(_text_of(path) or "", texts[path])}); train it as it is with '
                'tools/train.py, or give --config-out another folder, or --overwrite'
            )
    return changed


def published_weights(size: str, distilled: bool = False) -> str:
    """Return the URL of the weights that MMYOLO's authors trained on COCO.

    Args:
        size (str): Of :data:`SIZES`.
        distilled (bool): Those of the recipe that distils it, if there is one.
    """
    recipe = _RECIPES.get(size) if distilled else None
    path = f'rtm_kd::rtmdet/{recipe}_neck_300e_coco.py' if recipe else _package_path(size)
    return get_config(path, pretrained=True).model_path


def render(template: Path, title: str, values: Mapping[str, Any]) -> str:
    """Return a config file's text with another title and other values.

    Args:
        template (Path): The config file.
        title (str): Takes the place of the comment at its top.
        values (Mapping[str, Any]): Name -> new value, of assignments at the top level.

    Raises:
        KeyError: If the template does not assign one of the names.
    """
    text = template.read_text(encoding='utf-8')
    lines = text.splitlines(keepends=True)
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for name in sorted(values, key=lambda name: assigned[name].lineno, reverse=True):
        node = assigned[name]
        # ast counts bytes.
        before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
        after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        value = before + _literal(values[name], len(before)) + after
        lines[node.lineno - 1 : node.end_lineno] = [value]
    first = next(i for i, line in enumerate(lines) if not line.startswith('#'))
    header = ''.join(f'# {line}\n' for line in title.split('\n'))
    return header + ''.join(lines[first:])


def _augmentation(size: str, num_images: int) -> dict[str, Any]:
    """What differs from size to size in MMYOLO's mosaic and mixup, with caches for few images."""
    published = _published(size)
    (mixup,) = (step for step in published.train_pipeline if step.type == 'YOLOv5MixUp')
    return dict(
        # The transforms take no smaller caches.
        mosaic_max_cached_images=min(published.mosaic_max_cached_images, max(num_images, 4)),
        mixup_max_cached_images=min(published.mixup_max_cached_images, max(num_images // 2, 2)),
        mixup_prob=mixup.get('prob', 1.0),
        random_pop=mixup.get('random_pop', True),
    )


def _literal(value: Any, column: int) -> str:
    text = repr(value)
    if isinstance(value, _Beside):
        return text
    if isinstance(value, tuple) and column + len(text) > 100:
        text = '(\n' + ''.join(f'    {item!r},\n' for item in value) + ')'
    return inert(text)


def _text_of(file: Path) -> Optional[str]:
    return file.read_text(encoding='utf-8') if file.is_file() else None


def _first_difference(there: str, wanted: str) -> str:
    for old, new in zip(there.splitlines(), wanted.splitlines()):
        if old != new:
            return f'"{old.strip()}" for "{new.strip()}"'
    return 'one of them goes on longer'


@cache
def _published(size: str) -> Config:
    return get_config(_package_path(size))


def _package_path(size: str) -> str:
    return f'mmyolo::rtmdet/rtmdet_{size}_syncbn_fast_8xb32-300e_coco.py'
