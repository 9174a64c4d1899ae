"""A user's configs, written from the templates in configs/custom_dataset."""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Optional

from mmengine.hub import get_config

from rtm_kd.compat.config_text import inert
from rtm_kd.datasets.prepare import PreparedData
from rtm_kd.utils.errors import UsageError

# The recipes whose distilled weights MMYOLO has published, see configs/metafile.yml.
_RECIPES = dict(tiny='kd_tiny_rtmdet_s', s='kd_s_rtmdet_m', m='kd_m_rtmdet_l', l='kd_l_rtmdet_x')
#: Size -> mAP on COCO as MMYOLO published it, without distillation.
COCO_MAP = dict(tiny=41.0, s=44.6, m=49.3, l=51.4, x=52.8)
SIZES = tuple(COCO_MAP)
# Usual for some hundred to some thousand images, at batches of 4 to 32.
_ITERATIONS = 5000
_EPOCHS = (50, 300)
_BATCH_SIZE = 8
# The published recipe: its learning rate, for the images of a step, and its warm-up in steps.
_BASE_LR, _BASE_BATCH_SIZE, _BASE_WARMUP = 0.004, 256, 1000


@dataclass
class Schedule:
    """How long, in what portions and how fast to train, by the names in the configs."""

    train_batch_size_per_gpu: int  # images of a step
    max_epochs: int  # passes over the data
    base_lr: float  # learning rate after the warm-up
    lr_warmup_iters: int  # steps of the warm-up
    num_epochs_stage2: int  # last epochs, without mosaic and without distillation
    val_interval: int  # epochs from one evaluation to the next


def choose_schedule(
    num_images: int,
    batch_size: Optional[int] = None,
    epochs: Optional[int] = None,
    base_lr: Optional[float] = None,
    pretrained: bool = False,
) -> Schedule:
    """Choose what the user leaves open by the number of images.

    Args:
        num_images (int): Images to train on.
        batch_size (int, optional): Defaults to 8, or down to 2 where that would leave fewer
            than four steps an epoch.
        epochs (int, optional): Defaults to as many as make 5000 steps, or 2500 for a pretrained
            model, but from 50 to 300.
        base_lr (float, optional): Defaults to the published recipe's, scaled by the square root
            of the batch size, or by the batch size for a pretrained model.
        pretrained (bool): Whether the model starts from a detector's weights.

    Raises:
        ValueError: If there are fewer images than a batch.
    """
    if batch_size is None:
        batch_size = min(_BATCH_SIZE, 2 ** int(math.log2(max(num_images // 4, 2))), num_images)
    if batch_size > num_images:
        raise UsageError(
            f'--batch-size {batch_size} is more than the {num_images} images to train on; '
            f'choose at most {num_images}'
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
        train_batch_size_per_gpu=batch_size,
        max_epochs=epochs,
        base_lr=base_lr,
        # A twentieth of the run, and over before the learning rate begins to fall.
        lr_warmup_iters=min(_BASE_WARMUP, math.ceil(epochs * iterations / 20)),
        num_epochs_stage2=min(math.ceil(epochs / 10), 20) if epochs > 1 else 0,
        val_interval=max(epochs // 10, 1),
    )


class _Beside(str):
    """Name of a file in the config's own folder."""

    def __repr__(self) -> str:
        return repr('{{ fileDirname }}/' + self)


@dataclass
class ConfigPaths:
    """Paths of the configs of a teacher, of its student and of the distillation."""

    teacher: Path
    student: Path
    distillation: Path


def config_paths(folder: Path, student: str, teacher: str, name: str) -> ConfigPaths:
    """Return the paths of the configs for some data, named as the published ones are."""
    name = re.sub(r'[^\w-]+', '_', name)
    # A student of its teacher's size needs a name of its own.
    suffix = '_student' if student == teacher else ''
    return ConfigPaths(
        folder / f'rtmdet_{teacher}_{name}.py',
        folder / f'rtmdet_{student}_{name}{suffix}.py',
        folder / f'kd_{student}_rtmdet_{teacher}_{name}.py',
    )


@dataclass
class Run:
    """The training of a teacher, or of its student by distillation."""

    who: str  # 'teacher' or 'student'
    size: str
    schedule: Schedule  # a teacher shares its student's, except for the epochs
    start: Optional[str]  # path or URL of the weights it starts from
    config: Path
    best: Path  # the weights of its best epoch, missing until it is trained

    @property
    def work_dir(self) -> Path:
        """Named after its config."""
        return self.best.parent


def render_configs(
    paths: ConfigPaths,
    templates: Path,
    data: PreparedData,
    teacher: Run,
    student: Run,
    teacher_ckpt: str,
    **common: Any,
) -> dict[Path, str]:
    """Return the texts of the configs of a teacher, of its student and of the distillation.

    Each is its template with other values at the top.

    Args:
        paths (ConfigPaths): Where they will be.
        templates (Path): The folder ``configs/custom_dataset``.
        teacher_ckpt (str): Path or URL of the teacher's weights.
        common: Other values at the top of the teacher's config, which all three share.
    """
    whole, own = (get_config(_package_path(run.size)) for run in (teacher, student))
    images = data.num_train_images
    return {
        paths.teacher: render(
            templates / 'rtmdet_teacher.py',
            f'RTMDet-{teacher.size}: the teacher, and the data and the schedule that its student '
            'shares.\nWritten by tools/distill.py, and yours to edit.',
            dict(
                _base_=_package_path(teacher.size),
                **data.values,
                # What both share follows the student's run, which may be the shorter one.
                **{**vars(student.schedule), 'max_epochs': teacher.schedule.max_epochs},
                load_from=teacher.start,
                # At most those of few images, and no smaller than the transforms accept.
                mosaic_max_cached_images=min(whole.mosaic_max_cached_images, max(images, 4)),
                mixup_max_cached_images=min(whole.mixup_max_cached_images, max(images // 2, 2)),
                **common,
            ),
        ),
        paths.student: render(
            templates / 'rtmdet_student.py',
            f'RTMDet-{student.size} on the data of {paths.teacher.name}: the student, undistilled.',
            dict(
                _base_=f'./{paths.teacher.name}',
                max_epochs=student.schedule.max_epochs,
                load_from=student.start,
                deepen_factor=own.deepen_factor,
                widen_factor=own.widen_factor,
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
    """Return the paths whose files do not have these texts yet.

    Raises:
        ValueError: If one has another text, and must not be overwritten.
    """
    changed = []
    for path, text in texts.items():
        there = path.read_text(encoding='utf-8') if path.is_file() else None
        if there == text:
            continue
        changed.append(path)
        if path.exists() and not overwrite:
            lines = zip((there or '').splitlines(), text.splitlines())
            differs = [f'"{old.strip()}" for "{new.strip()}"' for old, new in lines if old != new]
            raise UsageError(
                f'{path} exists, and is not what this command would write '
                f'({[*differs, "one of them is longer"][0]}); train it as it is with '
                'tools/train.py, or give --config-out another folder, or --overwrite'
            )
    return changed


def published_weights(size: str, distilled: bool = False) -> str:
    """Return the URL of the weights that MMYOLO's authors trained on COCO.

    With ``distilled`` they are those of the recipe that distils this size, if there is one.
    """
    recipe = _RECIPES.get(size) if distilled else None
    path = f'rtm_kd::rtmdet/{recipe}_neck_300e_coco.py' if recipe else _package_path(size)
    return get_config(path, pretrained=True).model_path


def render(template: Path, title: str, values: Mapping[str, Any]) -> str:
    """Return a config file's text with another title and other values.

    Args:
        template (Path): The config file.
        title (str): Replaces the comment at its top.
        values (Mapping[str, Any]): Of names that the top level assigns.

    Raises:
        KeyError: If the template does not assign one of the names.
    """
    source = template.read_text(encoding='utf-8').encode()  # ast counts bytes
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for name in sorted(values, key=lambda name: assigned[name].lineno, reverse=True):
        node = assigned[name]
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        source = source[:start] + _literal(values[name], node.col_offset).encode() + source[end:]
    lines = source.decode().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if not line.startswith('#'))
    return ''.join([*(f'# {line}\n' for line in title.split('\n')), *lines[first:]])


def _literal(value: Any, column: int) -> str:
    text = repr(value)
    if isinstance(value, _Beside):
        return text
    if isinstance(value, tuple) and column + len(text) > 100:
        text = '(\n' + ''.join(f'    {item!r},\n' for item in value) + ')'
    return inert(text)


def _package_path(size: str) -> str:
    return f'mmyolo::rtmdet/rtmdet_{size}_syncbn_fast_8xb32-300e_coco.py'
