"""One command from a folder of images and annotations to a distilled detector."""

import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from rtm_kd.checks.config import check_data_files, check_output_folder, check_values
from rtm_kd.datasets.prepare import DataSource, prepare_data
from rtm_kd.datasets.write_configs import (
    COCO_MAP,
    SIZES,
    ConfigPaths,
    Run,
    changed_configs,
    choose_schedule,
    config_paths,
    published_weights,
    render_configs,
)
from rtm_kd.engine.runs import build_runner, check_training_data, quiet, temporary_run_config
from rtm_kd.models.algorithms.frozen_teacher import RANDOM
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.build_errors import explain_build_errors
from rtm_kd.utils.checkpoint import (
    check_start,
    class_names,
    newest_checkpoint,
    read_checkpoint,
    save_detector,
)
from rtm_kd.utils.files import atomic_write

from .train import BEST, train

COCO, COCO_PLAIN = 'coco', 'coco-plain'
_STRIDE = 32  # of the coarsest level, in pixels
_POOR_MAP = 0.1  # a teacher below this has little to teach


@dataclass
class Plan:
    """What a distillation writes and trains."""

    configs: ConfigPaths
    texts: dict[Path, str]  # of the configs
    runs: list[Run]  # the teacher's, if it is to be trained, and the student's
    messages: list[str]  # on the data and the teacher, for the user
    tools: str  # their folder, from the current one

    def command(self, tool: str, *arguments: object) -> str:
        """Return the command line of a tool, ready to paste."""
        return shlex.join(['python', os.path.join(self.tools, tool), *map(str, arguments)])


def distill(
    say: Callable[[str], None],
    amp: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    **choices: Any,
) -> Plan:
    """Write the configs of a distillation on your own data, check them and train.

    Args:
        say (Callable[[str], None]): Called with each line for the user as soon as it is known.
        amp (bool): Automatic mixed precision.
        overwrite (bool): Replace configs that exist.
        resume (bool): Resume interrupted runs.
        dry_run (bool): Stop before the first training step.
        choices: The data, models and schedule, as :func:`make_plan` takes them.

    Raises:
        ValueError: For anything that the user can fix, before training begins.
    """
    plan = make_plan(**choices)
    for line in plan.messages:
        say(line)
    changed = changed_configs(plan.texts, overwrite)
    check_plan(plan, changed, resume)
    for path, text in plan.texts.items():
        if path in changed:
            with atomic_write(path) as part:
                part.write_text(text, encoding='utf-8')
        say(f'{"written" if path in changed else "unchanged"}: {path}')
    if dry_run:
        options = ['--amp'] if amp else []
        for run in plan.runs:
            command = plan.command('train.py', run.config, '--work-dir', run.work_dir, *options)
            say(f'to train the {run.who}: {command}')
        command = plan.command('check.py', plan.configs.distillation, *options)
        say(f'how long the student takes: {command}, once there is a teacher')
    else:
        run_plan(plan, say, amp, resume)
    return plan


def make_plan(
    data_root: str,
    student: str,
    teacher: str,
    templates: str,
    teacher_ckpt: Optional[str] = None,
    student_ckpt: Optional[str] = None,
    train_teacher: bool = False,
    epochs: Optional[int] = None,
    teacher_epochs: Optional[int] = None,
    img_size: int = 640,
    batch_size: Optional[int] = None,
    lr: Optional[float] = None,
    num_workers: int = 2,
    name: Optional[str] = None,
    work_dir: str = 'work_dirs',
    config_out: Optional[str] = None,
    **data_options: Any,
) -> Plan:
    """Read the data and decide on configs and runs; write nothing but converted annotations.

    The arguments are the options of ``tools/distill.py``, whose ``--help`` describes them.

    Args:
        templates (str): The folder ``configs/custom_dataset``.
        data_options: See :class:`~rtm_kd.datasets.prepare.DataSource`.

    Raises:
        ValueError: For anything that the user can fix.
    """
    name = name or Path(os.path.abspath(Path(data_root).expanduser())).name
    config_dir = Path(config_out or Path('configs', name))
    numbers = dict(epochs=epochs, teacher_epochs=teacher_epochs, batch_size=batch_size, lr=lr)
    _check_choices(student, teacher, img_size, **numbers)
    check_output_folder('--config-out', config_dir)
    check_output_folder('--work-dir', work_dir)
    teacher_start = _weights(teacher_ckpt, teacher)
    student_start = _weights(student_ckpt, student, distilled=True)
    if not train_teacher and teacher_start is None:
        raise UsageError(_no_teacher(teacher))
    if teacher_epochs and not train_teacher:
        raise UsageError('--teacher-epochs says how long to train a teacher: add --train-teacher')
    source = DataSource(data_root, **data_options)
    data = prepare_data(source, os.path.join(work_dir, name, 'annotations'))
    images = data.num_train_images
    schedule = choose_schedule(images, batch_size, epochs, lr, student_start is not None)
    configs = config_paths(config_dir, student, teacher, name)
    own = schedule
    if train_teacher:
        # A teacher from scratch gets longer: only what it has learned can be passed on.
        longer = teacher_epochs or (2 * schedule.max_epochs if teacher_start is None else epochs)
        own = choose_schedule(images, batch_size, longer, lr, teacher_start is not None)
        # Teacher and student share one learning rate: the higher one, for training from scratch.
        own.base_lr = schedule.base_lr = max(own.base_lr, schedule.base_lr)
    runs = [
        Run(who, size, timing, start, config, Path(work_dir, config.stem, BEST))
        for who, size, timing, start, config in (
            ('teacher', teacher, own, teacher_start if train_teacher else None, configs.teacher),
            ('student', student, schedule, student_start, configs.distillation),
        )
    ]
    texts = render_configs(
        configs,
        Path(templates),
        data,
        *runs,
        str(runs[0].best) if train_teacher else teacher_start,
        img_scale=(img_size, img_size),
        train_num_workers=num_workers,
    )
    about_teacher = [] if train_teacher else _teacher_warnings(teacher_ckpt, data.class_names)
    return Plan(
        configs,
        texts,
        runs if train_teacher else runs[1:],
        [*data.messages, *(f'warning: {warning}' for warning in data.warnings + about_teacher)],
        os.path.relpath(Path(templates).parents[1] / 'tools'),
    )


def check_plan(plan: Plan, changed: list[Path], resume: bool) -> None:
    """Raise unless the work dirs are free, or to be resumed, and the configs can be built."""
    for run in plan.runs:
        begun = sorted(run.work_dir.glob('*.pth'))
        if not begun:
            continue
        # The student depends on every config.
        if run.config in changed or (run.who == 'student' and changed):
            raise UsageError(
                f'{run.work_dir} holds a run of another config ({begun[0].name}, ...); give '
                'another --work-dir or --name, or remove it'
            )
        if not resume and not run.best.is_file():
            raise UsageError(
                f'{run.work_dir} holds an unfinished run ({begun[0].name}, ...); continue it with '
                '--resume, or remove it'
            )
    if not plan.runs[-1].best.is_file():
        _check_configs(plan)


def run_plan(plan: Plan, say: Callable[[str], None], amp: bool, resume: bool) -> None:
    """Train what is not trained yet, and say how well it does."""
    scores = []
    for run in plan.runs:
        scores.append(_train(run, say, amp, resume))
        if run.who == 'teacher' and scores[0] is not None:
            say(_head_start(run.size, plan.runs[1].size, scores[0]))
    if len(scores) == 2 and None not in scores and scores[1] >= scores[0]:
        options = ['--amp'] if amp else []
        say(
            f'the student has caught up with its teacher, {scores[1]:.3f} to {scores[0]:.3f}: it '
            'may be better without. A larger model needs longer: train the teacher for more epochs '
            '(--teacher-epochs, with another --name), and see whether it helps: '
            + plan.command('compare.py', plan.configs.distillation, *options)
        )
    best = plan.runs[-1].best
    say(f'the distilled RTMDet-{plan.runs[-1].size}: {best}')
    say(f'to test it: {plan.command("test.py", plan.configs.student, best)}')


def _head_start(teacher: str, student: str, score: float) -> str:
    """Return a sentence on how much better a teacher is than its student without distillation."""
    if score < _POOR_MAP:
        return (
            f'warning: a teacher with a mAP of {score:.3f} has little to teach; train it longer or '
            f'from other weights (--teacher-ckpt {COCO}) before you distil from it'
        )
    expected = score * COCO_MAP[student] / COCO_MAP[teacher]
    return (
        f'on COCO an RTMDet-{student} without distillation reaches {COCO_MAP[student]} to the '
        f'{COCO_MAP[teacher]} of an RTMDet-{teacher}, which would be {expected:.3f} to {score:.3f} '
        'here. The further ahead the teacher is, the more it can teach: if its mAP was still '
        f'rising, train it longer (--teacher-epochs), or from COCO weights (--teacher-ckpt {COCO})'
    )


def _check_choices(student: str, teacher: str, img_size: int, **numbers: Optional[float]) -> None:
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


def _weights(checkpoint: Optional[str], size: str, distilled: bool = False) -> Optional[str]:
    if checkpoint not in (COCO, COCO_PLAIN):
        return checkpoint
    return published_weights(size, distilled and checkpoint == COCO)


def _no_teacher(teacher: str) -> str:
    return (
        'there is no teacher. --train-teacher trains one on these data first, which takes longer '
        'than the student; --teacher-ckpt FILE uses one that you have trained; --teacher-ckpt '
        f'{COCO} uses the RTMDet-{teacher} published for COCO, of which only backbone and neck are '
        'used: it has never seen your data, so how well it teaches on them is unknown. '
        f'--train-teacher --teacher-ckpt {COCO} trains one that starts from there'
    )


def _teacher_warnings(checkpoint: str, classes: list[str]) -> list[str]:
    if checkpoint in (COCO, COCO_PLAIN):
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


def _check_configs(plan: Plan) -> None:
    """Build everything that the distillation's config describes, and leave nothing behind."""
    with tempfile.TemporaryDirectory() as folder, explain_build_errors(), quiet():
        for path, text in plan.texts.items():
            Path(folder, path.name).write_text(text, encoding='utf-8')
        cfg = load_config(os.path.join(folder, plan.configs.distillation.name))
        check_values(cfg)
        check_data_files(cfg, 'train', 'val')
        cfg = temporary_run_config(cfg, folder)
        cfg.log_level = 'WARNING'
        runner = build_runner(cfg)
        check_training_data(runner)
        for run in plan.runs:
            if run.start is not None:
                check_start(run.start, getattr(runner.model, run.who), f'the {run.who}')
        teacher = plan.runs[0]
        if teacher.who == 'student' or teacher.best.is_file():
            # Reads the teacher's checkpoint.
            runner.model.init_weights()


def _train(run: Run, say: Callable[[str], None], amp: bool, resume: bool) -> Optional[float]:
    """Train unless that is done, and return the best mAP; None if it was done before."""
    if run.best.is_file():
        say(f'the {run.who} is trained already: {run.best}')
        return None
    say(f'training the {run.who}: {run.config}, into {run.work_dir}')
    runner = train(str(run.config), str(run.work_dir), amp=amp, resume='auto' if resume else None)
    if not run.best.is_file():
        # No box was ever found, so no epoch was the best.
        save_detector(read_checkpoint(newest_checkpoint(str(run.work_dir))), run.best)
    score = runner.message_hub.runtime_info.get('best_score', 0.0)
    say(f'the {run.who} has a val mAP of {score:.3f}: {run.best}')
    return score
