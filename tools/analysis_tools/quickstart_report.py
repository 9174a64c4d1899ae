"""Write the report of tools/quickstart.sh: numbers, and a page with pictures.

Example: python tools/analysis_tools/quickstart_report.py work_dirs/quickstart
"""

import argparse
import json
from pathlib import Path
from typing import Any

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.report import report
from rtm_kd.reports.work_dir import WorkDir
from rtm_kd.utils import report_usage_errors
from rtm_kd.utils.checkpoint import checkpoints_newest_first
from rtm_kd.utils.environment import machine, versions

RUNS = {'plain': 'plain student', 'distilled': 'distilled student'}
MAP = 'coco/bbox_mAP'


def summarise(folder: Path) -> dict[str, Any]:
    """Return the numbers as in report.json."""
    runs = {name: WorkDir(folder / name) for name in RUNS}
    result: dict[str, Any] = {'runs': {}, 'versions': versions(), 'machine': machine()}
    for name in ('teacher', *RUNS):
        metrics = json.loads(max(folder.glob(f'{name}_test/*/*.json')).read_text())
        result['runs'][name] = {'val_mAP': metrics[MAP], 'val_mAP_50': metrics[MAP + '_50']}
    for name, run in runs.items():
        checkpoint = checkpoints_newest_first(run.path)[0]
        result['runs'][name].update(
            epochs=run.max_position,
            steps=run.train[-1]['step'],
            step_time_s=round(run.seconds_per_iter(distilling=False), 3),
            checkpoint_MB=round(checkpoint.stat().st_size / 1e6, 1),
        )
    distilled = result['runs']['distilled']
    distilled['step_time_with_teacher_s'] = round(
        runs['distilled'].seconds_per_iter(distilling=True), 3
    )
    student = next((folder / 'distilled').glob('*_student.pth'))
    distilled['student_checkpoint_MB'] = round(student.stat().st_size / 1e6, 1)
    result['distillation_gain_mAP'] = round(
        distilled['val_mAP'] - result['runs']['plain']['val_mAP'], 3
    )
    timings = [
        line.split('\t') for line in (folder / 'logs' / 'seconds.tsv').read_text().split('\n')
    ]
    result['seconds'] = {title: int(seconds) for title, seconds in timings[:-1]}
    return result


def markdown(result: dict[str, Any]) -> str:
    """Return the numbers as a Markdown page."""
    distilled = result['runs']['distilled']
    gain = result['distillation_gain_mAP']
    lines = [
        '# Quickstart report',
        '',
        f"Distillation changed the student's val mAP by {gain:+.3f}, "
        f'from {result["runs"]["plain"]["val_mAP"]:.3f} to {distilled["val_mAP"]:.3f}. '
        'One short run each, on a small drawn dataset: docs/method.md has the gain of other seeds. '
        f'The teacher has {result["runs"]["teacher"]["val_mAP"]:.3f}.',
        '',
        '| | val mAP | mAP at IoU 0.5 | steps | s per step | checkpoint, MB |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for name, title in RUNS.items():
        run = result['runs'][name]
        lines.append(
            f'| {title} | {run["val_mAP"]:.3f} | {run["val_mAP_50"]:.3f} | {run["steps"]} | '
            f'{run["step_time_s"]} | {run["checkpoint_MB"]} |'
        )
    lines += [
        '',
        f'While the teacher runs, a step of the distilled student takes '
        f'{distilled["step_time_with_teacher_s"]} s; the table has its time after the detach. '
        f'Its converted checkpoint has {distilled["student_checkpoint_MB"]} MB: the weights, '
        "without the optimizer's state and the EMA copy.",
        '',
        'Curves, detections and attention: `report.html`.',
        '',
        '| | seconds |',
        '| --- | --- |',
    ]
    lines += [f'| {title} | {seconds} |' for title, seconds in result['seconds'].items()]
    versions = ', '.join(f'{name} {number}' for name, number in result['versions'].items())
    lines += ['', f'{result["machine"]}; {versions}.', '']
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'folder', type=Path, help='folder with the work dirs plain and distilled, and their tests'
    )
    return parser.parse_args()


def main() -> None:
    folder = parse_args().folder
    with report_usage_errors():
        result = summarise(folder)
        (folder / 'report.json').write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
        (folder / 'report.md').write_text(markdown(result), encoding='utf-8')
        report(
            [folder / 'distilled'],
            out=folder / 'report.html',
            plain=folder / 'plain',
        )
        print(f'report written to {folder}/report.html')


if __name__ == '__main__':
    main()
