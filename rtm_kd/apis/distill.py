"""From a folder of images and annotations to a distilled detector."""

import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from rtm_kd.checks.config import (
    check_batch_size,
    check_data_files,
    check_datasets,
    check_output_folder,
    check_values,
)
from rtm_kd.datasets.prepare import DataSource, PreparedData, prepare_data
from rtm_kd.datasets.write_configs import (
    SIZES,
    ConfigPaths,
    Training,
    changed_configs,
    choose_schedule,
    config_paths,
    published_weights,
    render_configs,
)
from rtm_kd.engine.runs import build_runner, quiet, temporary_run_config
from rtm_kd.models.algorithms.frozen_teacher import RANDOM
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import (
    check_start,
    class_names,
    newest_checkpoint,
    read_checkpoint,
    save_detector,
)
from rtm_kd.utils.errors import explain_build_errors, printable
from rtm_kd.utils.files import atomic_write

from .train import BEST, train

COCO = 'coco'
_STRIDE = 32  # of the coarsest level, in pixels
# A teacher below this has hardly learnt anything itself.
_POOR_MAP = 0.1


@dataclass
class DistillResult:
    """What :func:`distill` has made.

    Attributes:
        configs (ConfigPaths): Where they are.
        data (PreparedData): What they say of the data.
        student_weights (Path): The distilled detector; after a dry run it is not there.
    """

    configs: ConfigPaths
    data: PreparedData
    student_weights: Path


def distill(
    data_root: str,
    student: str,
    teacher: str,
    templates: str,
    train_ann: Optional[str] = None,
    val_ann: Optional[str] = None,
    train_img: Optional[str] = None,
    val_img: Optional[str] = None,
    classes: Optional[list[str]] = None,
    val_fraction: Optional[float] = None,
    seed: int = 0,
    train_on_background: bool = False,
    teacher_ckpt: Optional[str] = None,
    student_ckpt: Optional[str] = None,
    train_teacher: bool = False,
    epochs: Optional[int] = None,
    img_size: int = 640,
    batch_size: Optional[int] = None,
    lr: Optional[float] = None,
    num_workers: int = 2,
    amp: bool = False,
    name: Optional[str] = None,
    work_dir: str = 'work_dirs',
    config_out: Optional[str] = None,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
) -> DistillResult:
    """Write the configs of a distillation on one's own data, check them and train.

    What was trained already is not trained again. Prints what it does.

    Args:
        data_root, train_ann, val_ann, train_img, val_img, classes, val_fraction, seed,
            train_on_background: The data, as
            :class:`~rtm_kd.datasets.prepare.DataSource` takes them.
        student, teacher (str): Sizes, of ``'tiny'``, ``'s'``, ``'m'``, ``'l'`` and ``'x'``.
        templates (str): The folder ``configs/custom_dataset``.
        teacher_ckpt (str, optional): Path or URL of the teacher's weights, or ``'coco'`` for
            the published ones. With ``train_teacher`` its training starts from them.
        student_ckpt (str, optional): What the student starts from, in the same forms.
        train_teacher (bool): Train a teacher on these data first.
        epochs, batch_size, lr: As :func:`~.write_configs.choose_schedule` takes them.
        img_size (int): Side of the square that the model sees, a multiple of 32 pixels.
        num_workers (int): Processes that load images.
        amp (bool): Automatic mixed precision.
        name (str, optional): Of the data. Defaults to the name of its folder.
        work_dir (str): Folder for a work dir of each run, named after its config, and for
            annotations that had to be written, in ``<name>/annotations``.
        config_out (str, optional): Folder for the configs. Defaults to ``configs/<name>``.
        overwrite (bool): Replace configs that are there already.
        resume (bool): Go on with a run that was begun.
        dry_run (bool): Stop before the first training step.

    Raises:
        ValueError: For whatever the user can put right, before training begins.
    """
    name = name or Path(os.path.abspath(Path(data_root).expanduser())).name
    config_dir = Path(config_out or Path('configs', name))
    _check_arguments(student, teacher, img_size, epochs=epochs, batch_size=batch_size, lr=lr)
    check_output_folder('--config-out', config_dir)
    check_output_folder('--work-dir', work_dir)
    teacher_start, student_start = _weights(teacher_ckpt, teacher), _weights(student_ckpt, student)
    if not train_teacher and teacher_start is None:
        raise UsageError(_no_teacher(teacher))
    source = DataSource(
        data_root,
        train_ann,
        val_ann,
        train_img,
        val_img,
        classes,
        val_fraction,
        seed,
        train_on_background,
    )
    data = prepare_data(source, os.path.join(work_dir, name, 'annotations'))
    images = data.num_train_images
    student_schedule = schedule = choose_schedule(
        images, batch_size, epochs, lr, pretrained=student_start is not None
    )
    if train_teacher:
        schedule = choose_schedule(
            images, batch_size, epochs, lr, pretrained=teacher_start is not None
        )
        # They share one; the lower one is for those that have learnt most of it already.
        schedule.base_lr = max(schedule.base_lr, student_schedule.base_lr)
    warnings = list(data.warnings)
    if not train_teacher:
        warnings += _teacher_warnings(teacher_ckpt, data.class_names)
    for line in (*data.messages, *(f'warning: {warning}' for warning in warnings)):
        print(printable(line))

    paths = config_paths(config_dir, student, teacher, name)
    teacher_run = Path(work_dir, paths.teacher.stem)
    student_run = Path(work_dir, paths.distillation.stem)
    texts = render_configs(
        paths,
        Path(templates),
        data,
        Training(teacher, schedule, teacher_start if train_teacher else None),
        Training(student, student_schedule, student_start),
        str(teacher_run / BEST) if train_teacher else teacher_start,
        img_scale=(img_size, img_size),
        train_num_workers=num_workers,
    )
    changed = changed_configs(texts, overwrite)
    _check_run(student_run, bool(changed), resume)
    if train_teacher:
        _check_run(teacher_run, paths.teacher in changed, resume)
    if not (student_run / BEST).is_file():
        _check_configs(
            texts,
            paths.distillation.name,
            student_start,
            teacher_start if train_teacher else None,
            load_teacher=not train_teacher or (teacher_run / BEST).is_file(),
        )
    for path, text in texts.items():
        if path in changed:
            with atomic_write(path) as part:
                part.write_text(text, encoding='utf-8')
        print(f'{"written" if path in changed else "unchanged"}: {path}')

    runs = [(paths.teacher, teacher_run, 'teacher')] if train_teacher else []
    runs.append((paths.distillation, student_run, 'student'))
    result = DistillResult(paths, data, student_run / BEST)
    if dry_run:
        mixed = ['--amp'] if amp else []
        for path, run, who in runs:
            command = _command(templates, 'train.py', path, '--work-dir', run, *mixed)
            print(f'to train the {who}: {command}')
        command = _command(templates, 'check.py', paths.distillation, *mixed)
        print(f'how long the student takes: {command}, once there is a teacher')
        return result
    scores = [_train(path, run, who, amp, resume) for path, run, who in runs]
    if len(scores) == 2 and None not in scores and scores[1] >= scores[0]:
        print(
            f'the student has caught up with its teacher, {scores[1]:.3f} to {scores[0]:.3f}: it '
            'may be better without. A larger model needs longer: train the teacher for more epochs '
            f'({paths.teacher}), and see whether it helps: '
            + _command(templates, 'compare.py', paths.distillation, *(['--amp'] if amp else []))
        )
    print(f'the distilled RTMDet-{student}: {result.student_weights}')
    print(f'to test it: {_command(templates, "test.py", paths.student, result.student_weights)}')
    return result


def _check_arguments(student: str, teacher: str, img_size: int, **numbers: Optional[float]) -> None:
    for option, size in (('--student', student), ('--teacher', teacher)):
        if size not in SIZES:
            raise UsageError(f'{option} must be one of {", ".join(SIZES)}, got "{size}"')
    for option, number in numbers.items():
        if number is not None and number <= 0:
            raise UsageError(f'--{option.replace("_", "-")} must be above 0, got {number}')
    if img_size < _STRIDE * 2 or img_size % _STRIDE:
        raise UsageError(
            f'--img-size must be a multiple of {_STRIDE} from {_STRIDE * 2} up, got {img_size}'
        )


def _command(templates: str, tool: str, *arguments: object) -> str:
    """Return the command line of a tool, as it can be pasted here."""
    tools = os.path.relpath(Path(templates).parents[1] / 'tools')
    return shlex.join(['python', os.path.join(tools, tool), *map(str, arguments)])


def _weights(checkpoint: Optional[str], size: str) -> Optional[str]:
    return published_weights(size) if checkpoint == COCO else checkpoint


def _no_teacher(teacher: str) -> str:
    return (
        'there is no teacher. --train-teacher trains one on these data first, which takes longer '
        'than the student; --teacher-ckpt FILE takes one that is trained already; --teacher-ckpt '
        f'{COCO} takes the RTMDet-{teacher} that was published for COCO, of which only backbone '
        'and neck are used: it was never trained on your data, and how well it teaches on them '
        'nobody knows. --train-teacher --teacher-ckpt '
        f'{COCO} trains one that starts from there'
    )


def _teacher_warnings(checkpoint: str, classes: list[str]) -> list[str]:
    if checkpoint == COCO:
        return [
            'the teacher has been trained on COCO and not on your data; compare with '
            '--train-teacher before you rely on it'
        ]
    if checkpoint == RANDOM or '://' in checkpoint:
        return []
    taught = class_names(read_checkpoint(checkpoint).get('meta', {}).get('dataset_meta'))
    if taught is None or set(taught) == set(classes):
        return []
    return [
        f'the teacher has been trained on other classes ({", ".join(taught[:5])}'
        f'{", ..." if len(taught) > 5 else ""}); only its backbone and neck are used'
    ]


def _check_run(run: Path, other_config: bool, resume: bool) -> None:
    """Raise unless a work dir is empty, finished, or one to go on in."""
    begun = sorted(run.glob('*.pth'))
    if not begun:
        return
    if other_config:
        raise UsageError(
            f'{run} holds a run of another config ({begun[0].name}, ...); give another --work-dir '
            'or --name, or remove it'
        )
    if not resume and not (run / BEST).is_file():
        raise UsageError(
            f'{run} holds a run that was begun ({begun[0].name}, ...); go on with --resume, or '
            'remove it'
        )


def _check_configs(
    texts: dict[Path, str],
    distillation: str,
    student_start: Optional[str],
    teacher_start: Optional[str],
    load_teacher: bool,
) -> None:
    """Build everything that a distillation's config describes, and leave nothing behind."""
    with tempfile.TemporaryDirectory() as folder, explain_build_errors(), quiet():
        for path, text in texts.items():
            Path(folder, path.name).write_text(text, encoding='utf-8')
        cfg = load_config(os.path.join(folder, distillation))
        check_values(cfg)
        check_data_files(cfg, 'train', 'val')
        cfg = temporary_run_config(cfg, folder)
        cfg.log_level = 'WARNING'
        runner = build_runner(cfg)
        check_datasets(runner, 'train', 'val')
        check_batch_size(runner)
        if student_start is not None:
            check_start(student_start, runner.model.student, 'the student')
        if teacher_start is not None:
            check_start(teacher_start, runner.model.teacher, 'the teacher')
        if load_teacher:
            runner.model.init_weights()


def _train(path: Path, run: Path, who: str, amp: bool, resume: bool) -> Optional[float]:
    """Train unless that is done, and return the best mAP; None if it was done before."""
    if (run / BEST).is_file():
        print(f'the {who} is trained already: {run / BEST}')
        return None
    print(f'training the {who}: {path}, into {run}', flush=True)
    runner = train(
        str(path),
        work_dir=str(run),
        amp=amp,
        resume='auto' if resume else None,
    )
    if not (run / BEST).is_file():
        # No box was ever found, so that no epoch was the best.
        save_detector(read_checkpoint(newest_checkpoint(str(run))), run / BEST)
    score = runner.message_hub.runtime_info.get('best_score', 0.0)
    print(f'the {who} has a val mAP of {score:.3f}: {run / BEST}')
    if who == 'teacher' and score < _POOR_MAP:
        print(
            f'warning: a teacher with a mAP of {score:.3f} has little to teach; train it longer or '
            f'from other weights (--teacher-ckpt {COCO}) before you distil from it'
        )
    return score
