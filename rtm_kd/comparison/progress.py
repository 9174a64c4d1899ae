"""Where a comparison is, and how long it is going to take."""

import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, TextIO

from .records import read_position, read_run


class Progress:
    """One line that keeps changing on a terminal, a line an epoch in a file.

    Args:
        runs (Sequence[tuple[str, str, Path]]): Of all runs, in their order: name, side and work
            dir.
        split (str): What the runs are evaluated on.
        stream (TextIO, optional): Defaults to stderr.
    """

    def __init__(
        self, runs: Sequence[tuple[str, str, Path]], split: str, stream: Optional[TextIO] = None
    ) -> None:
        self.runs = runs
        self.split = split
        self.stream = stream or sys.stderr
        self._shown: Optional[tuple] = None

    def say(self, line: str) -> None:
        """Print a line that stays."""
        print(self._cleared(line), file=self.stream, flush=True)

    def show(self, index: int, started: float) -> None:
        """Show a run's state, if there is something new to show.

        Args:
            index (int): Which of the runs it is.
            started (float): When its process was started; what the run left before does not
                count.
        """
        name, _, work_dir = self.runs[index]
        position = read_position(work_dir)
        title = f'run {index + 1}/{len(self.runs)} ({name})'
        if position is None or position['time'] < started:
            self._update(f'{title}: starting', (index, -1))
            return
        iters = position['max_iters'] / position['max_epochs']
        done = int(position['iter'] / iters)
        if position['iter'] >= position['max_iters']:
            text = f'all {done} epochs done, evaluating'
        else:
            text = f'epoch {done + 1}/{position["max_epochs"]}'
        evaluations = read_run(work_dir, self.split).evaluations
        if evaluations:
            last = max(evaluations)
            scores = [f'{v:.3f}' for k, v in evaluations[last].items() if k.endswith('_mAP')]
            text += f', val mAP {"/".join(scores)} after epoch {last}'
        left = self._left(index)
        if left is not None and left[0]:
            text += f', about {clock(left[0])} left, {clock(left[1])} for all runs'
        elif left is not None and left[1]:
            text += f', about {clock(left[1])} left for all runs'
        self._update(f'{title}: {text}', (index, done))

    def _left(self, index: int) -> Optional[tuple[float, float]]:
        """Return the seconds left of this run and of all, None before there is a measure."""
        positions = [read_position(work_dir) for _, _, work_dir in self.runs]
        rates: dict[str, list[float]] = {'plain': [], 'distilled': []}
        for (_, arm, _), position in zip(self.runs, positions):
            if position and position['iter'] > position['begin']:
                seconds = position['now'] - position['time']
                rates[arm].append(seconds / (position['iter'] - position['begin']))
        known = [rate for values in rates.values() for rate in values]
        current = positions[index]
        if not known or current is None:
            return None
        left = []
        for i, ((_, arm, _), position) in enumerate(zip(self.runs, positions)):
            # Of a side that has not run yet the other's pace is all there is to go by.
            rate = statistics.fmean(rates[arm] or known)
            if i >= index:
                done = position['iter'] if position else 0
                left.append(max(0, current['max_iters'] - done) * rate)
        return left[0], sum(left)

    def _update(self, line: str, state: tuple) -> None:
        if self.stream.isatty():
            # A line that the terminal breaks could not be taken back.
            columns = shutil.get_terminal_size().columns
            self.stream.write(self._cleared(line[: columns - 1]))
            self.stream.flush()
        elif state != self._shown:
            print(line, file=self.stream, flush=True)
        self._shown = state

    def _cleared(self, line: str) -> str:
        return f'\r\033[K{line}' if self.stream.isatty() else line


def clock(seconds: float) -> str:
    """Return seconds as ``5.2 s``, ``3 min 07 s`` or ``2 h 03 min``."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes:02} min'
    return f'{minutes} min {seconds:02} s' if minutes else f'{seconds} s'
