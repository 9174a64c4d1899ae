"""Files that the runs of a comparison leave in their work dirs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from rtm_kd.engine.hooks.run_record_hook import POSITION, RECORDS
from rtm_kd.reports.work_dir import read_json_lines
from rtm_kd.utils.files import write_text

#: What a trained run leaves in its work dir, besides ``<split>.json`` of its evaluation.
TRAINED = 'trained.json'


@dataclass
class RunRecords:
    """A run, finished or not; :class:`~rtm_kd.engine.hooks.RunRecordHook` describes the records."""

    begins: list[dict] = field(default_factory=list)  # one for each start
    epochs: dict[int, dict] = field(default_factory=dict)  # from 1
    evaluations: dict[int, dict] = field(default_factory=dict)  # epoch -> metrics of validation
    trained: Optional[dict] = None  # what is known once it is trained
    result: Optional[dict] = None  # its evaluation
    position: Optional[dict] = None  # its last start, with ``iter`` and ``now``

    @property
    def student(self) -> Optional[str]:
        """Digest of the weights that the student began with."""
        return next((b['student'] for b in self.begins if b['begin'] == 0), None)

    @property
    def resumed(self) -> list[int]:
        """The iterations after which it was interrupted and resumed."""
        return [begin['begin'] for begin in self.begins if begin['begin'] > 0]

    @property
    def images(self) -> list[str]:
        """Digest of the images of each epoch."""
        return [record['images'] for _, record in sorted(self.epochs.items())]

    @property
    def seconds(self) -> float:
        """Seconds of training; of an interrupted epoch only the rest was timed."""
        iters = sum(record['iters'] for record in self.epochs.values())
        seconds = sum(record['seconds'] for record in self.epochs.values())
        return seconds * self.begins[0]['max_iters'] / iters

    @property
    def memory(self) -> int:
        """The most bytes that one of its processes held."""
        return max(record['memory'] for record in self.epochs.values())

    def curve(self, kind: str) -> list[tuple[int, float]]:
        """Return (epoch, val mAP) of ``'bbox'`` or ``'segm'``."""
        return [
            (epoch, value)
            for epoch, metrics in sorted(self.evaluations.items())
            # CocoMetric gives nothing if nothing was detected.
            for name, value in metrics.items()
            if name.endswith(f'{kind}_mAP')
        ]


def read_run(work_dir: Path, split: str) -> RunRecords:
    """Read what a run left in its work dir, with the evaluation of ``'val'`` or ``'test'``.

    If an epoch was trained twice, since its checkpoint was lost, the second time counts.
    """
    run = RunRecords(
        trained=read_json(work_dir / TRAINED),
        result=read_json(work_dir / f'{split}.json'),
        position=read_json(work_dir / POSITION),
    )
    for record in read_json_lines(work_dir / RECORDS):
        if 'begin' in record:
            run.begins.append(record)
            for done in (run.epochs, run.evaluations):
                for epoch in [epoch for epoch in done if epoch > record['epoch']]:
                    del done[epoch]
        elif 'val' in record:
            run.evaluations[record['val']] = record['metrics']
        else:
            run.epochs[record['epoch']] = record
    return run


def read_json(path: Path) -> Optional[Any]:
    """Return the content of a file, None if it does not exist."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a file atomically."""
    write_text(path, json.dumps(content, indent=1) + '\n')
