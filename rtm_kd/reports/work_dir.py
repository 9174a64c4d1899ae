"""Work dirs of trainings: MMEngine's logs, config and checkpoints."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.config import Config

from rtm_kd.models.distillation import Distillation
from rtm_kd.utils.checkpoint import checkpoints_newest_first, read_checkpoint
from rtm_kd.utils.config import read_dumped_config
from rtm_kd.utils.errors import UsageError, first_few

DISTILL_PREFIX = 'distill.'
STUDENT_LOSS_PREFIX = 'student.'
# MMEngine adds a folder of this name whenever a run begins or resumes.
_TIME = re.compile(r'\d{8}_\d{6}')
_LOGGED = 'vis_data/scalars.json'
# Other values in a line of training.
_NOT_LOSSES = {'lr', 'base_lr', 'data_time', 'time', 'epoch', 'iter', 'step', 'memory', 'grad_norm'}
# Lines at the start of a log that a result may depend on: name there -> name on the page.
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


class WorkDir:
    """The work dir of a training that is running, finished or dead.

    A run that was resumed has several folders of logs; the later one counts where they overlap.

    Attributes:
        title, colour (str): How a page shows the run, to be set; the colour is a name in
            :data:`~.page.PALETTE`.
        cfg (Config | None): The config as MMEngine dumped it, None if it can't be read.
        train, val (list[dict]): A line for each logged iteration, and for each evaluation. In
            ``val`` their ``step`` counts epochs, or iterations if the run does.
        unit (str): What the run counts, ``'epoch'`` or ``'iteration'``.
        environment (dict[str, str]): Machine and versions, from the log.
        distils (bool): Whether the config has a teacher.
        teacher_ckpt (str | None): Path or URL of the teacher's checkpoint.
        max_position (int | None): Epochs, or iterations, of the whole run.

    Raises:
        UsageError: If it does not exist, or has no log of MMEngine.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.name = self.title = self.path.resolve().name
        self.colour = 'ink'
        self._folders = folders = _log_folders(self.path)
        self.train, self.val = _merged([read_json_lines(folder / _LOGGED) for folder in folders])
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
        self.unit = 'epoch' if self.by_epoch else 'iteration'
        self._steps_per_epoch = _steps_per_epoch(text, self.train) if self.by_epoch else 1
        self.cfg = _config(folders)
        self._distillation = distillation = Distillation.of(self.cfg)
        self.distils = distillation is not None
        self.teacher_ckpt = distillation and distillation.teacher_ckpt
        loop = (self.cfg or {}).get('train_cfg') or {}
        self.max_position = loop.get('max_epochs' if self.by_epoch else 'max_iters')

    def taught(self, other: 'WorkDir') -> bool:
        """Return whether a checkpoint of this run is the teacher of the other."""
        checkpoint = other.teacher_ckpt
        return checkpoint is not None and Path(checkpoint).resolve().parent == self.path.resolve()

    @property
    def position(self) -> float:
        """Epochs, or iterations, that the log has."""
        trained = self.train[-1]['step'] / self._steps_per_epoch
        return max([trained, *(line['step'] for line in self.val)])

    @property
    def finished(self) -> bool:
        """Whether the run is at its end; its last few iterations may not be logged."""
        if self.max_position is None:
            return False
        unlogged = 1 / self._steps_per_epoch
        if len(self.train) > 1:
            unlogged *= self.train[-1]['step'] - self.train[-2]['step']
        return self.max_position - self.position < max(unlogged, 1e-9)

    @property
    def marks(self) -> list[tuple[int, str]]:
        """The epochs after which something changes, and what, from the config."""
        marks = []
        if self._distillation and self._distillation.detach_epoch is not None:
            marks.append((self._distillation.detach_epoch, 'teacher detached'))
        for hook in (self.cfg or {}).get('custom_hooks') or []:
            if isinstance(hook.get('switch_epoch'), int):
                marks.append((hook['switch_epoch'], 'pipeline switch'))
        return sorted(marks, key=lambda mark: mark[0])

    @property
    def losses(self) -> list[str]:
        """Names of the logged losses, the student's before those of distillation."""
        names = {
            name: None
            for line in self.train
            for name, value in line.items()
            if name not in _NOT_LOSSES and _is_number(value)
        }
        return sorted(names, key=lambda name: (name.startswith(DISTILL_PREFIX), name == 'loss'))

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (position, value) of a training quantity or a metric, NaN for NaN and Inf."""
        return _points(self.train, name, self._steps_per_epoch) or _points(self.val, name, 1)

    def metric(self) -> Optional[str]:
        """Return the name of the mAP, None before the first evaluation."""
        names = [name for line in self.val for name in line if name.endswith('mAP')]
        return 'coco/bbox_mAP' if 'coco/bbox_mAP' in names else next(iter(names), None)

    def seconds_per_iter(self, distilling: bool) -> Optional[float]:
        """Return the median time of an iteration with the teacher, or without it."""
        times = [
            line['time']
            for line in self.train
            if any(name.startswith(DISTILL_PREFIX) for name in line) == distilling
            and _is_number(line.get('time'))
        ]
        return statistics.median(times) if times else None

    def read_checkpoint(self) -> tuple[dict[str, Any], Path]:
        """Return the content of the newest checkpoint that can be read, and its path.

        Raises:
            UsageError: If there is none yet, or none that can be read.
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
        """The weights that the run began with, None if random or unknown."""
        first = _config(self._folders[:1])
        return None if first is None or first.get('resume') else first.get('load_from')

    def fault(self) -> Optional[str]:
        """Return a sentence on the losses and metrics that were NaN or Inf, None if none was."""
        first = {}
        for name in filter(None, [*self.losses, self.metric()]):
            bad = [position for position, value in self.curve(name) if math.isnan(value)]
            if bad:
                first[name] = bad[0]
        if not first:
            return None
        where = f'{self.unit} {min(first.values()):.4g}'
        return f'NaN or Inf, first at {where}: {first_few(list(first))}'


def _log_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(f'there is no work dir {path}')
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and _TIME.fullmatch(folder.name)
    )
    if folders:
        return folders
    inside = sorted({str(found.parents[2]) for found in path.glob(f'*/*/{_LOGGED}')})
    remedy = ''
    if _TIME.fullmatch(path.resolve().name):
        remedy = f'; give the folder above, {path.resolve().parent}'
    elif inside:
        remedy = '; give one or more of those in it: ' + ', '.join(inside[:5])
    raise UsageError(
        f'{path} is not the work dir of a training: it has no <time>/{_LOGGED} of MMEngine{remedy}'
    )


def _why_nothing_is_logged(path: Path, folders: list[Path]) -> str:
    written = [folder / _LOGGED for folder in folders if (folder / _LOGGED).is_file()]
    if any(log.read_bytes().strip() for log in written):
        return (
            f'{written[-1]} is not a training log of MMEngine: none of its lines has a "step" and '
            'a "loss"'
        )
    return (
        f'nothing is logged in {path} yet: a run writes its first line into {folders[-1].name}/'
        f'{_LOGGED} after default_hooks.logger.interval iterations'
    )


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file with one a line; none if it does not exist."""
    lines = []
    for text in path.read_text('utf-8', 'replace').splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:  # empty, cut off by a kill, or still being written
            continue
    return [line for line in lines if isinstance(line, dict)]


def _merged(logs: list[list[dict[str, Any]]]) -> tuple[list[dict], list[dict]]:
    train, val = [], []
    for log in logs:
        log = [line for line in log if _is_number(line.get('step'))]
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
    logged = re.findall(r'Epoch\(train\)\s+\[\d+\]\[\s*\d+/(\d+)\]', text)
    if logged:
        return int(logged[-1])
    # Without the text log: no iteration is past the end of its epoch.
    return max(line['step'] / line['epoch'] for line in train if line.get('epoch'))


def _environment(text: str) -> dict[str, str]:
    found = {}
    for name, ours in _ENVIRONMENT.items():
        # GPUs of one model share a line, GPU 0,1,2.
        match = re.findall(rf'^\s+{re.escape(name)}(?:,[\d,]+)?: (.+)$', text, re.MULTILINE)
        if match:
            found[ours] = match[-1].split(' (')[0].strip()
    return found


def _config(folders: list[Path]) -> Optional[Config]:
    for folder in reversed(folders):
        try:
            return read_dumped_config(str(folder / 'vis_data' / 'config.py'))
        except UsageError:  # missing, cut off, or with values that can't be dumped
            continue
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _points(lines: list[dict], name: str, steps: float) -> list[tuple[float, float]]:
    return [
        (line['step'] / steps, line[name] if math.isfinite(line[name]) else math.nan)
        for line in lines
        if _is_number(line.get(name))
    ]
