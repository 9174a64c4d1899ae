"""Progress of a comparison on the terminal."""

import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, TextIO

from .records import read_run


class Progress:
    """One line that keeps changing on a terminal; in a file, a line for each epoch.

    Args:
        runs (Mapping[str, Path]): Name of each run, in their order -> its work dir.
        split (str): What the runs are evaluated on.
        stream (TextIO, optional): Defaults to stderr.
    """

    def __init__(
        self, runs: Mapping[str, Path], split: str, stream: Optional[TextIO] = None
    ) -> None:
        self.runs = runs
        self.split = split
        self.stream = stream or sys.stderr
        self._shown: Optional[tuple] = None

    def print(self, line: str) -> None:
        """Print a line that stays."""
        clear = '\r\033[K' if self.stream.isatty() else ''
        print(f'{clear}{line}', file=self.stream, flush=True)

    def show(self, name: str, started: float) -> None:
        """Show the state of a run whose process was started at a time, if it has changed."""
        index = list(self.runs).index(name)
        records = [read_run(work_dir, self.split) for work_dir in self.runs.values()]
        position = records[index].position
        text, done = 'starting', -1
        if position is not None and position['time'] >= started:
            epochs = position['max_epochs']
            done = position['iter'] * epochs // position['max_iters']
            text = f'epoch {done + 1}/{epochs}'
            if done == epochs:
                text = f'all {epochs} epochs done, evaluating'
            if records[index].evaluations:
                epoch, metrics = max(records[index].evaluations.items())
                scores = '/'.join(f'{v:.3f}' for k, v in metrics.items() if k.endswith('_mAP'))
                text += f', val mAP {scores} after epoch {epoch}'
            text += self._left([run.position for run in records], index)
        line = f'run {index + 1}/{len(self.runs)} ({name}): {text}'
        if self.stream.isatty():
            # A line that the terminal breaks could not be taken back.
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f'\r\033[K{line}', end='', file=self.stream, flush=True)
        elif self._shown != (index, done):
            self.print(line)
        self._shown = index, done

    @staticmethod
    def _left(positions: list[Optional[dict]], index: int) -> str:
        """Return the time left for this run and for all; empty before there is a measure."""
        paces = {
            i: (position['now'] - position['time']) / (position['iter'] - position['begin'])
            for i, position in enumerate(positions)
            if position and position['iter'] > position['begin']
        }
        if not paces:
            return ''
        mean = statistics.fmean(paces.values())
        left = [
            (positions[index]['max_iters'] - (position['iter'] if position else 0))
            * (paces.get(index, mean) if i == index else mean)
            for i, position in enumerate(positions[index:], index)
        ]
        total = clock(sum(left))
        if left[0]:
            return f', about {clock(left[0])} left, {total} for all runs'
        return f', about {total} left for all runs' if sum(left) else ''


def clock(seconds: float) -> str:
    """Return seconds as ``5.2 s``, ``3 min 07 s`` or ``2 h 03 min``."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes:02} min'
    return f'{minutes} min {seconds:02} s' if minutes else f'{seconds} s'
