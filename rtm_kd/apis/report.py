"""The HTML report on one training or several."""

import datetime
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import torch

from rtm_kd.reports.curves import plot_curves
from rtm_kd.reports.facts import facts, verdict
from rtm_kd.reports.page import render_page
from rtm_kd.reports.pictures import take_pictures
from rtm_kd.reports.work_dir import WorkDir
from rtm_kd.utils import UsageError
from rtm_kd.utils.environment import machine
from rtm_kd.utils.files import check_can_write, write_text
from rtm_kd.version import __version__

_COLOURS = ('distilled', 'plain', 'third', 'fourth', 'fifth', 'sixth')


def report(
    work_dirs: Sequence[str],
    out: Optional[str] = None,
    plain: Optional[str] = None,
    images: int = 4,
    device: str = 'cpu',
) -> Path:
    """Write a page on one or several trainings: curves, pictures and settings.

    The arguments are the options of ``tools/analysis_tools/report.py``, whose ``--help`` describes
    them. The runs may be with or without a teacher.

    Returns:
        Path: The file, self-contained and without scripts.

    Raises:
        ValueError: If a work dir has no log of MMEngine, the page can't be written, or the device
            does not exist.
    """
    if images < 0:
        raise UsageError(f'the number of images must be 0 or more, got {images}')
    runs = _runs(work_dirs, plain)
    target = Path(out) if out else Path(work_dirs[0]) / 'report.html'
    check_can_write(target, 'the page')
    _check_device(device)
    notes = [f'{run.title}: {fault}.' for run in runs if (fault := run.fault())]
    pictures = take_pictures(runs, images, device, notes) if images else {}
    page = render_page(
        'report.html',
        title=', '.join(run.name for run in runs),
        verdict=verdict(runs),
        pictures=pictures,
        notes=notes,
        runs=runs,
        plots=plot_curves(runs),
        facts=facts(runs),
        made=f'Written {datetime.datetime.now():%Y/%m/%d %H:%M} by rtm_kd {__version__} on '
        f'{machine()}.',
    )
    write_text(target, page, errors='replace')
    return target


def _runs(work_dirs: Sequence[str], plain: Optional[str]) -> list[WorkDir]:
    found = [WorkDir(path) for path in work_dirs]
    teachers = [one for one in found if any(one.taught(other) for other in found)]
    students = [one for one in found if one not in teachers]
    used = Counter(plain=plain is not None)
    for work_dir in found:
        if work_dir in teachers:
            work_dir.colour = 'teacher'
        else:
            # A plain run gets the colour of plain runs if it is not taken.
            favourite = 'distilled' if work_dir.distils else 'plain'
            work_dir.colour = min(_COLOURS, key=lambda name: (used[name], name != favourite))
            used[work_dir.colour] += 1
        work_dir.title = _short_name(work_dir, found)
        if teachers == [work_dir]:
            work_dir.title = 'teacher'
        elif students == [work_dir] and work_dir.distils:
            work_dir.title = 'student'
    if plain is None:
        return found
    alone = WorkDir(plain)
    taken = 'plain student' in {run.title for run in found}
    alone.title, alone.colour = os.path.abspath(plain) if taken else 'plain student', 'plain'
    return [*found, alone]


def _short_name(work_dir: WorkDir, found: Sequence[WorkDir]) -> str:
    """Return the shortest end of a path that none of the others has."""
    others = [other.path.resolve().parts for other in found if other is not work_dir]
    parts = work_dir.path.resolve().parts
    for length in range(1, len(parts) + 1):
        if all(other[-length:] != parts[-length:] for other in others):
            return os.path.join(*parts[-length:])
    raise UsageError(f'the work dir {work_dir.path} is given twice')


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or missing in this torch or machine
        reason = str(error).strip().split('\n')[0]
        raise UsageError(f'--device {device}: {reason}') from error
