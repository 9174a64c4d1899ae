"""What a training leaves behind: MMEngine's logs, its config and its checkpoints."""

import json
import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from mmengine.config import Config

from rtm_kd.models.distillation import Distillation
from rtm_kd.utils.checkpoint import checkpoints_newest_first, read_checkpoint
from rtm_kd.utils.config import read_dumped_config
from rtm_kd.utils.errors import UsageError

DISTILL_PREFIX = 'distill.'
STUDENT_LOSS_PREFIX = 'student.'
# MMEngine starts a folder of this name whenever a run begins or goes on.
_TIME = re.compile(r'\d{8}_\d{6}')
_LOGGED = 'vis_data/scalars.json'
# What a line of training has besides losses.
_NO_LOSSES = {'lr', 'base_lr', 'data_time', 'time', 'epoch', 'iter', 'step', 'memory', 'grad_norm'}
# Of the lines at the start of a log, what a result may depend on: name there, name here.
_ENVIRONMENT = {
    'sys.platform': 'system',
    'GPU 0': 'GPU',
    'Python': 'Python',
    'PyTorch': 'PyTorch',
    'TorchVision': 'TorchVision',
    'OpenCV': 'OpenCV',
    'MMEngine': 'MMEngine',
    'GPU number': 'processes',
    'seed': 'seed',
}


class Mark(NamedTuple):
    """Something that happens in a run: after so many epochs, and what."""

    epoch: int
    what: str


class WorkDir:
    """A training's work dir, whether it is at work, done or dead.

    A run that was resumed has several folders of logs; of what two of them tell of the same
    iterations the later one holds.

    Args:
        path (str | Path): The work dir.

    Attributes:
        path (Path): The work dir.
        cfg (Config | None): Its config as MMEngine dumped it, None if it can't be read.
        train (list[dict]): A line for each logged training iteration, with its ``step``.
        val (list[dict]): One for each evaluation; its ``step`` counts epochs, or iterations
            where the run does.
        environment (dict[str, str]): What the log says of machine and versions.

    Raises:
        ValueError: If there is no such folder, no log, or none that MMEngine wrote.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._folders = folders = _log_folders(self.path)
        self.train, self.val = _merged([_read_lines(folder / _LOGGED) for folder in folders])
        if not self.train:
            raise UsageError(_why_nothing_is_logged(self.path, folders))
        text = ''.join(
            log.read_text(encoding='utf-8', errors='replace')
            for folder in folders
            for log in sorted(folder.glob('*.log'))
        )
        self.started = folders[0].name
        self.last_logged = (re.findall(r'^(\S+ \d\d:\d\d:\d\d) - ', text, re.MULTILINE) or [''])[-1]
        self.environment = _environment(text)
        self.by_epoch = 'epoch' in self.train[-1]
        self._steps_per_epoch = _steps_per_epoch(text, self.train) if self.by_epoch else 1
        self.cfg = _config(folders)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def distils(self) -> bool:
        """Whether its config has a teacher."""
        return Distillation.of(self.cfg) is not None

    @property
    def teacher_ckpt(self) -> Optional[str]:
        """Path or URL of its teacher's checkpoint, None if it has none."""
        distillation = Distillation.of(self.cfg)
        return distillation and distillation.teacher_ckpt

    def taught(self, other: 'WorkDir') -> bool:
        """Whether the other run has a checkpoint of this one as its teacher."""
        checkpoint = other.teacher_ckpt
        return checkpoint is not None and Path(checkpoint).resolve().parent == self.path.resolve()

    @property
    def max_position(self) -> Optional[int]:
        """Epochs, or iterations, that the run is to have; None if that is unknown."""
        loop = (self.cfg or {}).get('train_cfg') or {}
        return loop.get('max_epochs' if self.by_epoch else 'max_iters')

    @property
    def position(self) -> float:
        """Epochs, or iterations, that are done as far as the log tells."""
        trained = self.train[-1]['step'] / self._steps_per_epoch
        return max([trained, *(line['step'] for line in self.val)])

    @property
    def finished(self) -> bool:
        """Whether the run got to its end; its last few iterations need not be in the log."""
        if self.max_position is None:
            return False
        behind = self.max_position - self.position
        unlogged = 1 / self._steps_per_epoch
        if len(self.train) > 1:
            unlogged *= self.train[-1]['step'] - self.train[-2]['step']
        return behind < max(unlogged, 1e-9)

    @property
    def marks(self) -> list[Mark]:
        """When the teacher leaves and the pipeline changes, by the config."""
        marks = []
        distillation = Distillation.of(self.cfg)
        if distillation is not None and distillation.detach_epoch is not None:
            marks.append(Mark(distillation.detach_epoch, 'teacher detached'))
        for hook in (self.cfg or {}).get('custom_hooks') or []:
            if isinstance(hook.get('switch_epoch'), int):
                marks.append(Mark(hook['switch_epoch'], 'pipeline switch'))
        return sorted(marks, key=lambda mark: (mark.epoch, mark.what != 'teacher detached'))

    @property
    def losses(self) -> list[str]:
        """Names of the losses that were logged, the student's before those of distillation."""
        names = {
            name: None
            for line in self.train
            for name, value in line.items()
            if name not in _NO_LOSSES and _is_number(value)
        }
        return sorted(names, key=lambda name: (name.startswith(DISTILL_PREFIX), name == 'loss'))

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (position, value) of a training quantity, ``nan`` where it was no number."""
        return [
            (line['step'] / self._steps_per_epoch, _finite(line[name]))
            for line in self.train
            if _is_number(line.get(name))
        ]

    def val_curve(self, metric: str) -> list[tuple[float, float]]:
        """Return (position, value) of a metric of validation."""
        return [
            (line['step'], _finite(line[metric]))
            for line in self.val
            if _is_number(line.get(metric))
        ]

    def metric(self) -> Optional[str]:
        """Return the name of the metric that counts, mAP; None before the first evaluation."""
        names = list(dict.fromkeys(name for line in self.val for name in line))
        preferred = ['coco/bbox_mAP', *(name for name in names if name.endswith('mAP'))]
        return next((name for name in preferred if name in names), None)

    def seconds_per_iter(self, distilling: bool) -> Optional[float]:
        """Return the median time of an iteration with the teacher at work, or without it."""
        times = [
            line['time']
            for line in self.train
            if any(name.startswith(DISTILL_PREFIX) for name in line) == distilling
            and _is_number(line.get('time'))
        ]
        return statistics.median(times) if times else None

    def read_checkpoint(self) -> tuple[dict[str, Any], Path]:
        """Read the newest checkpoint that can be read.

        Returns:
            dict: Its content.
            Path: Where it lies.

        Raises:
            ValueError: If there is none yet, or none that can be read.
        """
        paths = checkpoints_newest_first(str(self.path))
        for path in paths:
            try:
                return read_checkpoint(str(path)), path
            except UsageError as error:  # torn by a kill, or being written
                reason = error
        raise UsageError(str(reason) if paths else f'{self.path} has no checkpoint yet')

    @property
    def load_from(self) -> Optional[str]:
        """The weights that the run began with, None if they were random or are unknown."""
        first = _config(self._folders[:1])
        return None if first is None or first.get('resume') else first.get('load_from')

    def fault(self) -> Optional[str]:
        """Return a sentence on losses and metrics that were no numbers, and since when."""
        first = {}
        for name in filter(None, [*self.losses, self.metric()]):
            points = self.curve(name) or self.val_curve(name)
            bad = [position for position, value in points if math.isnan(value)]
            if bad:
                first[name] = bad[0]
        if not first:
            return None
        names = list(first)
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        unit = 'epoch' if self.by_epoch else 'iteration'
        return (
            f'infinite or no number, first at {unit} {min(first.values()):.4g}: '
            f'{", ".join(names[:3])}{more}'
        )


class Run(NamedTuple):
    """A run as a page shows it."""

    title: str
    colour: str  # one of the names in visualization.plots.COLOURS
    work_dir: WorkDir


def _log_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(f'there is no work dir {path}')
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and _TIME.fullmatch(folder.name)
    )
    if folders:
        return folders
    message = f'{path} is not the work dir of a training: it has no <time>/{_LOGGED} of MMEngine'
    if _TIME.fullmatch(path.resolve().name):
        raise UsageError(f'{message}; give the folder above, {path.resolve().parent}')
    inside = sorted({str(found.parents[2]) for found in path.glob(f'*/*/{_LOGGED}')})
    if inside:
        message += '; give one or more of those in it: ' + ', '.join(inside[:5])
    raise UsageError(message)


def _why_nothing_is_logged(path: Path, folders: list[Path]) -> str:
    written = [folder / _LOGGED for folder in folders if (folder / _LOGGED).is_file()]
    if any(log.read_bytes().strip() for log in written):
        return (
            f'{written[-1]} is no log of a training by MMEngine: none of its lines has a "step" '
            'and a "loss"'
        )
    return (
        f'nothing is logged in {path} yet: a run writes its first line into {folders[-1].name}/'
        f'{_LOGGED} after as many iterations as default_hooks.logger.interval says'
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the last one of a run that was killed, or is writing it
            continue
        if isinstance(line, dict) and _is_number(line.get('step')):
            lines.append(line)
    return lines


def _merged(logs: Iterable[list[dict[str, Any]]]) -> tuple[list[dict], list[dict]]:
    train, val = [], []
    for log in logs:
        trained = [line for line in log if 'loss' in line]
        if trained:
            first = trained[0]
            train = [line for line in train if line['step'] < first['step']]
            # An evaluation comes after the epoch that it counts.
            done = first.get('epoch', first['step'])
            val = [line for line in val if line['step'] < done]
        train += trained
        val += [line for line in log if 'loss' not in line and any('/' in name for name in line)]
    return train, val


def _steps_per_epoch(text: str, train: list[dict]) -> float:
    said = re.findall(r'Epoch\(train\)\s+\[\d+\]\[\s*\d+/(\d+)\]', text)
    if said:
        return int(said[-1])
    # Without the log: no iteration lies past the end of its epoch.
    return max(line['step'] / line['epoch'] for line in train if line.get('epoch'))


def _environment(text: str) -> dict[str, str]:
    found = {}
    for name, ours in _ENVIRONMENT.items():
        # GPUs that are alike share a line, GPU 0,1,2.
        match = re.findall(rf'^\s+{re.escape(name)}(?:,[\d,]+)?: (.+)$', text, re.MULTILINE)
        if match:
            found[ours] = match[-1].split(' (')[0].strip()
    return found


def _config(folders: list[Path]) -> Optional[Config]:
    for folder in reversed(folders):
        try:
            return read_dumped_config(str(folder / 'vis_data' / 'config.py'))
        except UsageError:  # missing, cut off, or with what can't be written out
            continue
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
