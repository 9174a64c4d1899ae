"""Comparison of a student with and without its teacher."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, TextIO

from mmengine.config import Config

from rtm_kd.checks.config import check_data_files, check_output_folder, check_values
from rtm_kd.engine.runs import enable_amp
from rtm_kd.models.distillation import Distillation
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.errors import first_few
from rtm_kd.utils.files import locked, write_text

from .evaluation import writing_evaluator
from .processes import run_module, sigterm_raises
from .progress import Progress, state
from .records import RunRecords, read_json, read_run, write_json
from .report import html_page, terminal_table
from .sides import SIDES, differences, fingerprint, paired_configs, teacher_config
from .summary import Runs, Summary, summarise

PLAN = 'plan.json'
_RUN = 'rtm_kd.comparison.run'


def compare(
    config: str,
    seeds: int = 3,
    work_dir: Optional[str] = None,
    amp: bool = False,
    test: bool = False,
    restart: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
    stream: Optional[TextIO] = None,
) -> Summary:
    """Train the student of a distillation with and without its teacher, and compare.

    Both sides have the same budget, data order and seeds; :mod:`rtm_kd.comparison` says how. One
    run follows the other, each in its own process. A second call with the same arguments resumes,
    with more seeds it adds those.

    Writes ``comparison.json``, ``comparison.html`` and ``comparison.md`` into the work dir, where
    the runs are ``seed_<n>/plain`` and ``seed_<n>/distilled``, with the seeds 0, 1, ...

    The other arguments are the options of ``tools/compare.py``, whose ``--help`` describes them.

    Args:
        stream (TextIO, optional): Where progress is shown. Defaults to stderr.

    Raises:
        UsageError: If the user can put it right, a run fails, or the work dir has the runs of
            another comparison.
    """
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UsageError(f'--seeds must be an integer of 1 or more, got {seeds!r}')
    split = 'test' if test else 'val'
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    configs = paired_configs(cfg)
    writing_evaluator(cfg, split, '')
    check_data_files(cfg, 'train', 'val', split)
    checkpoint = Distillation.of(cfg).teacher_file
    if checkpoint and not os.path.isfile(checkpoint):
        raise UsageError(f'there is no teacher_ckpt {checkpoint}; train the teacher first')
    if amp:
        enable_amp(cfg)  # for its errors: each run does it again
    folder = Path(work_dir or os.path.join('work_dirs', f'{Path(config).stem}_compare'))
    check_output_folder('--work-dir', folder)
    folder.mkdir(parents=True, exist_ok=True)
    refusal = (
        f'another comparison is at work in {folder}, or one of its runs is being saved; wait for '
        'it, or give another --work-dir'
    )
    with locked(folder, refusal, inherited=True) as lock, sigterm_raises():
        comparison = _Comparison(folder, configs, seeds, split, amp, lock, Progress(stream))
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
            detach_epoch=Distillation.of(configs['distilled']).detach_epoch,
        )
        summary = summarise(runs, teacher, reason, setting)
        write_json(folder / 'comparison.json', asdict(summary))
        write_text(folder / 'comparison.md', terminal_table(summary))
        write_text(folder / 'comparison.html', html_page(summary))
    return summary


@dataclass
class _Comparison:
    """The runs of a comparison in a folder, with the config of each side."""

    folder: Path
    configs: dict[str, Config]
    seeds: int
    split: str
    amp: bool
    lock: TextIO
    progress: Progress

    def plan(self, restart: bool) -> None:
        """Write what is compared, or check that it is what was written.

        Raises:
            UsageError: If it is not, or the folder has runs of unknown origin.
        """
        path = self.folder / PLAN
        begun = [
            old for old in self.folder.iterdir() if re.fullmatch(r'seed_\d+|teacher', old.name)
        ]
        if begun and not path.is_file():
            raise UsageError(
                f'{self.folder} has {min(begun).name}, and no {PLAN} to tell its origin; give '
                'another --work-dir, or remove it'
            )
        if restart:
            for old in begun:
                shutil.rmtree(old, ignore_errors=True)
            path.unlink(missing_ok=True)
        plan, before = fingerprint(self.configs, self.amp), read_json(path)
        if before is None:
            for side, cfg in self.configs.items():
                write_text(self.folder / f'{side}.py', cfg.pretty_text)
            write_json(path, plan)
        elif changes := differences(before, plan):
            raise UsageError(
                f'{self.folder} has a comparison that differs from this one in '
                f'{first_few(changes, separator="; ")}; give another --work-dir, or '
                '--restart, which removes its runs'
            )

    def evaluate_teacher(self) -> tuple[Optional[dict], str]:
        """Return the teacher's evaluation, or None and why not."""
        cfg, reason = teacher_config(self.configs)
        if cfg is None:
            return None, reason
        result = self.folder / 'teacher' / f'{self.split}.json'
        if not result.is_file():
            self.progress.print('evaluating the teacher')
            write_text(self.folder / 'teacher.py', cfg.pretty_text)
            arguments = ['--checkpoint', self.configs['distilled'].model.teacher_ckpt]
            code, log = self._execute(result.parent, 'teacher', 'teacher', arguments, lambda: None)
            if code != 0:
                # Its head may not fit these classes; backbone and neck teach all the same.
                return None, f'{_last_line(log)} ({log})'
        return read_json(result), ''

    def run(self) -> Runs:
        """Train and evaluate the runs that are not finished, and return all.

        Raises:
            UsageError: If one fails, or the two sides of a seed don't begin alike.
        """
        # Sides alternate, so that a machine that slows down affects both. The distilled one is
        # first, since a fault in the config shows there.
        runs = [
            (seed, side)
            for seed in range(self.seeds)
            for side in (SIDES if seed % 2 else reversed(SIDES))
        ]
        for index, (seed, side) in enumerate(runs):
            name = f'run {index + 1}/{len(runs)} (seed {seed}, {side})'
            if self._read(seed, side).result is None:
                self._train(runs, index, name)
            self._check_pair(seed)
            result = self._read(seed, side).result['metrics']
            scores = ', '.join(
                f'{kind} mAP {metrics["mAP"]:.3f}' for kind, metrics in result.items()
            )
            self.progress.print(f'{name}: done, {scores}')
        return {side: [self._read(seed, side) for seed in range(self.seeds)] for side in SIDES}

    def _train(self, runs: list[tuple[int, str]], index: int, name: str) -> None:
        seed, side = runs[index]
        started = time.time()

        def watch() -> None:
            self._check_pair(seed)
            text, epochs = state([self._read(*run) for run in runs], index, started)
            self.progress.show(f'{name}: {text}', (index, epochs))

        arguments = ['--seed', str(seed), *(['--amp'] if self.amp else [])]
        code, log = self._execute(self._work_dir(seed, side), side, 'plain', arguments, watch)
        if code != 0:
            how = 'failed' if code > 0 else f'was ended by signal {-code}'
            how += ' (out of memory?)' if code == -9 else ''
            raise UsageError(
                f'the run "seed {seed}, {side}" {how}: {_last_line(log)}; the whole log '
                f'is {log}. The same command resumes'
            )

    def _check_pair(self, seed: int) -> None:
        plain, distilled = (self._read(seed, side).student for side in SIDES)
        if None not in (plain, distilled) and plain != distilled:
            raise UsageError(
                f'with seed {seed} the two sides did not begin with the same student, so there is '
                'nothing to compare; does load_from, or an init_cfg, reach only one of them?'
            )

    def _execute(
        self, work_dir: Path, config: str, detector: str, arguments: list[str], watch: Callable
    ) -> tuple[int, Path]:
        log = work_dir / 'run.log'
        files = [self.folder / f'{config}.py', self.folder / f'{detector}.py', work_dir]
        arguments = [*map(str, files), self.split, *arguments]
        return run_module(_RUN, arguments, log, self.lock, watch), log

    def _read(self, seed: int, side: str) -> RunRecords:
        return read_run(self._work_dir(seed, side), self.split)

    def _work_dir(self, seed: int, side: str) -> Path:
        return self.folder / f'seed_{seed}' / side


def _last_line(log: Path) -> str:
    lines = [
        line for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line
    ]
    return lines[-1].removeprefix('error: ') if lines else 'no output'
