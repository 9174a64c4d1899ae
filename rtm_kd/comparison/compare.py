"""Whether distillation pays off: the same student with and without its teacher."""

import copy
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Optional, TextIO

from mmengine.config import Config

from rtm_kd.checks.config import check_data_files, check_output_folder, check_values
from rtm_kd.comparison.arms import (
    ARMS,
    differences,
    fingerprint,
    paired_configs,
    teacher_config,
)
from rtm_kd.comparison.processes import run_module, sigterm_raises
from rtm_kd.comparison.progress import Progress
from rtm_kd.comparison.records import RunRecords, read_json, read_run
from rtm_kd.comparison.report import html_page, terminal_table
from rtm_kd.comparison.run import write_json
from rtm_kd.comparison.summary import summarise
from rtm_kd.engine.runs import enable_amp
from rtm_kd.models.distillation import Distillation
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.files import atomic_write, locked

PLAN = 'plan.json'
REPORT = 'comparison'
_RUN = 'rtm_kd.comparison.run'
_CHANGES_NAMED = 3
# Folders of the runs and of the teacher's evaluation.
_RUNS = re.compile(r'seed_\d+|teacher')


def compare(
    config: str,
    seeds: int = 3,
    work_dir: Optional[str] = None,
    amp: bool = False,
    test: bool = False,
    restart: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
    stream: Optional[TextIO] = None,
) -> dict[str, Any]:
    """Train the student of a distillation with and without its teacher, and compare.

    Both sides have the same budget, data order and seeds; :mod:`rtm_kd.comparison` says how.
    One run after the other, each in a process of its own. Called again with the same arguments
    it goes on where it stopped, with more seeds it adds those.

    Writes ``comparison.json``, ``comparison.html`` and ``comparison.md`` into the work dir.

    Args:
        config (str): Path of a distillation config.
        seeds (int): Pairs of runs, with the seeds 0, 1, ...
        work_dir (str, optional): Defaults to ``work_dirs/<name of the config>_compare``. The
            runs are in its ``seed_<n>/plain`` and ``seed_<n>/distilled``.
        amp (bool): Automatic mixed precision, on both sides.
        test (bool): Evaluate on the test images instead of the validation's.
        restart (bool): Throw away what an earlier comparison left in the work dir.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        stream (TextIO, optional): Where progress is shown. Defaults to stderr.

    Returns:
        dict: What ``comparison.json`` has, see :func:`rtm_kd.comparison.summary.summarise`.

    Raises:
        ValueError: For whatever the user can put right, for a run that failed, and for a work
            dir that has the runs of another comparison.
    """
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UsageError(f'--seeds is how many, an integer from 1 up, got {seeds!r}')
    split = 'test' if test else 'val'
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    arms = paired_configs(cfg)
    check_data_files(cfg, 'train', 'val', split)
    _check_teacher_file(cfg)
    if amp:
        enable_amp(copy.deepcopy(cfg))
    folder = Path(work_dir or os.path.join('work_dirs', f'{Path(config).stem}_compare'))
    check_output_folder('--work-dir', folder)
    folder.mkdir(parents=True, exist_ok=True)
    refusal = (
        f'another comparison is at work in {folder}, or a run of it is just being saved; wait for '
        'it, or give another --work-dir'
    )
    with locked(folder, refusal, inherited=True) as lock, sigterm_raises():
        comparison = _Comparison(folder, arms, seeds, split, amp, lock, stream)
        comparison.plan(restart)
        teacher, reason = comparison.evaluate_teacher()
        runs = comparison.run()
        setting = dict(
            name=Path(config).stem,
            config=config,
            cfg_options=' '.join(f'{k}={v}' for k, v in (cfg_options or {}).items()),
            work_dir=str(folder),
            split=split,
            amp=amp,
            detach_epoch=Distillation.of(arms['distilled']).detach_epoch,
        )
        summary = summarise(runs, teacher, reason, setting)
        write_json(folder / f'{REPORT}.json', summary)
        for suffix, page in (('md', terminal_table(summary)), ('html', html_page(summary))):
            with atomic_write(folder / f'{REPORT}.{suffix}') as part:
                part.write_text(page, encoding='utf-8')
    return summary


class _Comparison:
    """The runs of a comparison, in their folder."""

    def __init__(
        self,
        folder: Path,
        arms: dict[str, Config],
        seeds: int,
        split: str,
        amp: bool,
        lock: TextIO,
        stream: Optional[TextIO],
    ) -> None:
        self.folder = folder
        self.arms = arms
        self.split = split
        self.amp = amp
        self.lock = lock
        # What heats up or slows down a machine meets both sides. The distilled one is first,
        # since that is where a fault in the config shows.
        self.runs = [
            (seed, arm) for seed in range(seeds) for arm in (ARMS if seed % 2 else reversed(ARMS))
        ]
        named = [(f'seed {s}, {arm}', arm, self._work_dir(s, arm)) for s, arm in self.runs]
        self.progress = Progress(named, split, stream)

    def plan(self, restart: bool) -> None:
        """Write down what is compared, or see that it is what was written down.

        Raises:
            ValueError: If it is not, or the folder has runs of unknown origin.
        """
        path = self.folder / PLAN
        begun = [old for old in self.folder.iterdir() if _RUNS.fullmatch(old.name)]
        if begun and not path.is_file():
            raise UsageError(
                f'{self.folder} has {min(begun).name}, and no {PLAN} that says of what; give '
                'another --work-dir, or remove it'
            )
        if restart:
            for old in begun:
                shutil.rmtree(old, ignore_errors=True)
            path.unlink(missing_ok=True)
        plan, before = fingerprint(self.arms, self.amp), read_json(path)
        changes = [] if before is None else differences(before, plan)
        if changes:
            named = '; '.join(changes[:_CHANGES_NAMED])
            more = len(changes) - _CHANGES_NAMED
            raise UsageError(
                f'{self.folder} has a comparison that differs from this one in {named}'
                + (f' and {more} more' if more > 0 else '')
                + '; give another --work-dir, or --restart, which removes its runs'
            )
        if before is None:
            for arm, cfg in self.arms.items():
                self._write_config(arm, cfg)
            write_json(path, plan)

    def evaluate_teacher(self) -> tuple[Optional[dict], str]:
        """Return the teacher's evaluation, or None and why not."""
        cfg, reason = teacher_config(self.arms)
        if cfg is None:
            return None, reason
        work_dir = self.folder / 'teacher'
        result = work_dir / f'{self.split}.json'
        if not result.is_file():
            self.progress.say('evaluating the teacher')
            self._write_config('teacher', cfg)
            checkpoint = self.arms['distilled'].model.teacher_ckpt
            code, log = self._execute(
                work_dir, 'teacher', 'teacher', ['--checkpoint', checkpoint], lambda: None
            )
            if code != 0:
                # Its head may not fit these classes; backbone and neck teach all the same.
                return None, f'{_last_line(log)} ({log})'
        return read_json(result), ''

    def run(self) -> dict[int, dict[str, RunRecords]]:
        """Train and evaluate what is not there yet, and return all runs: seed -> side -> run.

        Raises:
            ValueError: If one fails, or the two sides of a seed don't begin alike.
        """
        for index, (seed, arm) in enumerate(self.runs):
            if self._read(seed, arm).result is None:
                self._train(index, seed, arm)
            result = self._read(seed, arm).result['metrics']
            scores = ', '.join(f'{kind} mAP {_shown(m["mAP"])}' for kind, m in result.items())
            self.progress.say(
                f'run {index + 1}/{len(self.runs)} (seed {seed}, {arm}): done, {scores}'
            )
        runs: dict[int, dict[str, RunRecords]] = {}
        for seed, arm in self.runs:
            self._check_pair(seed)
            runs.setdefault(seed, {})[arm] = self._read(seed, arm)
        return runs

    def _train(self, index: int, seed: int, arm: str) -> None:
        started = time.time()

        def watch() -> None:
            self._check_pair(seed)
            self.progress.show(index, started)

        arguments = ['--seed', str(seed), *(['--amp'] if self.amp else [])]
        code, log = self._execute(self._work_dir(seed, arm), arm, 'plain', arguments, watch)
        if code != 0:
            how = 'failed'
            if code < 0:
                how = f'was ended by signal {-code}' + (', for want of memory?' * (code == -9))
            raise UsageError(
                f'the run "seed {seed}, {arm}" {how}: {_last_line(log)}; all of it is in {log}. '
                'The same command goes on from there'
            )
        self._check_pair(seed)

    def _check_pair(self, seed: int) -> None:
        first = {arm: self._read(seed, arm).student for arm in ARMS}
        if None not in first.values() and first['plain'] != first['distilled']:
            raise UsageError(
                f'with seed {seed} the two sides did not begin with the same student, so there is '
                'nothing to compare; does load_from, or an init_cfg, reach one of them alone?'
            )

    def _execute(
        self, work_dir: Path, config: str, detector: str, arguments: list[str], watch: Any
    ) -> tuple[int, Path]:
        log = work_dir / 'run.log'
        files = [str(self._config(config)), str(self._config(detector)), str(work_dir)]
        code = run_module(_RUN, [*files, self.split, *arguments], log, self.lock, watch)
        return code, log

    def _read(self, seed: int, arm: str) -> RunRecords:
        return read_run(self._work_dir(seed, arm), self.split)

    def _work_dir(self, seed: int, arm: str) -> Path:
        return self.folder / f'seed_{seed}' / arm

    def _config(self, name: str) -> Path:
        return self.folder / f'{name}.py'

    def _write_config(self, name: str, cfg: Config) -> None:
        with atomic_write(self._config(name)) as part:
            part.write_text(cfg.pretty_text, encoding='utf-8')


def _check_teacher_file(cfg: Config) -> None:
    # Found here instead of after the runs without a teacher.
    checkpoint = Distillation.of(cfg).teacher_file
    if checkpoint and not os.path.isfile(checkpoint):
        raise UsageError(f'there is no teacher_ckpt {checkpoint}; train the teacher first')


def _last_line(log: Path) -> str:
    lines = [
        line for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line
    ]
    return lines[-1].removeprefix('error: ') if lines else 'it said nothing'


def _shown(value: Optional[float]) -> str:
    return 'none' if value is None else f'{value:.3f}'
