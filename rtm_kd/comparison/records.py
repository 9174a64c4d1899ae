"""What the runs of a comparison have left in their work dirs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from rtm_kd.engine.hooks.run_record_hook import POSITION, RECORDS

from .run import TRAINED


@dataclass
class RunRecords:
    """A run, finished or not.

    Attributes:
        begins (list[dict]): One for each time that it was started, see
            :class:`~rtm_kd.engine.hooks.RunRecordHook`; likewise the next two.
        epochs (dict[int, dict]): Epoch, from 1 -> its record.
        evaluations (dict[int, dict]): Epoch -> metrics of its validation.
        trained (dict, optional): What is known since it was trained.
        result (dict, optional): Its evaluation.
    """

    begins: list[dict] = field(default_factory=list)
    epochs: dict[int, dict] = field(default_factory=dict)
    evaluations: dict[int, dict] = field(default_factory=dict)
    trained: Optional[dict] = None
    result: Optional[dict] = None

    @property
    def student(self) -> Optional[str]:
        """Digest of the weights that the student began with."""
        return next((b['student'] for b in self.begins if b['begin'] == 0), None)

    @property
    def resumed(self) -> list[int]:
        """The iterations after which it was interrupted and went on."""
        return [begin['begin'] for begin in self.begins if begin['begin'] > 0]

    @property
    def images(self) -> list[str]:
        """Digest of the images of each epoch."""
        return [record['images'] for _, record in sorted(self.epochs.items())]


def read_run(work_dir: Path, split: str) -> RunRecords:
    """Read what a run has left.

    Of an epoch that was trained twice, because its checkpoint was lost, the second time counts.

    Args:
        work_dir (Path): The run's.
        split (str): The evaluation's, ``'val'`` or ``'test'``.
    """
    run = RunRecords(
        trained=read_json(work_dir / TRAINED), result=read_json(work_dir / f'{split}.json')
    )
    for record in _lines(work_dir / RECORDS):
        if 'begin' in record:
            run.begins.append(record)
            for known in (run.epochs, run.evaluations):
                for epoch in [epoch for epoch in known if epoch > record['epoch']]:
                    del known[epoch]
        elif 'val' in record:
            run.evaluations[record['val']] = record['metrics']
        else:
            run.epochs[record['epoch']] = record
    return run


def read_position(work_dir: Path) -> Optional[dict]:
    """Return where a run is: its last beginning with ``iter`` and ``now``; None before that."""
    return read_json(work_dir / POSITION)


def read_json(path: Path) -> Optional[Any]:
    """Return a file's content, None if there is none."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None


def _lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # empty, or cut off by a kill
            continue
    return records
