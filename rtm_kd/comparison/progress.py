"""Progress of a comparison on the terminal."""

import shutil
import statistics
import sys
from collections.abc import Hashable, Sequence
from typing import Optional, TextIO

from .records import RunRecords


class Progress:
    """One line that keeps changing on a terminal; in a file, a line for each epoch."""

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self.stream = stream or sys.stderr
        self._step: Hashable = None

    def print(self, line: str) -> None:
        """Print a line that stays."""
        clear = '\r\033[K' if self.stream.isatty() else ''
        print(f'{clear}{line}', file=self.stream, flush=True)

    def show(self, line: str, step: Hashable) -> None:
        """Show a line in place of the last one; in a file only if the step is another one."""
        if self.stream.isatty():
            # A line that the terminal breaks could not be taken back.
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f'\r\033[K{line}', end='', file=self.stream, flush=True)
        elif step != self._step:
            self.print(line)
        self._step = step


def state(runs: Sequence[RunRecords], index: int, started: float) -> tuple[str, int]:
    """Describe the run at an index, whose process was started at a time, and count its epochs."""
    run = runs[index]
    position = run.position
    if position is None or position['time'] < started:
        return 'starting', -1
    epochs = position['max_epochs']
    done = position['iter'] * epochs // position['max_iters']
    text = f'epoch {done + 1}/{epochs}'
    if done == epochs:
        text = f'all {epochs} epochs done, evaluating'
    if run.evaluations:
        epoch, metrics = max(run.evaluations.items())
        scores = '/'.join(f'{v:.3f}' for k, v in metrics.items() if k.endswith('_mAP'))
        text += f', val mAP {scores} after epoch {epoch}'
    return text + _left([run.position for run in runs], index), done


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
