"""Report on the three runs of tools/quickstart.sh: numbers, curves and detections.

Example: python tools/analysis_tools/quickstart_report.py work_dirs/quickstart
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Optional

import matplotlib
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torchvision.ops import nms

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.test import use_student
from rtm_kd.registry import DATASETS, MODELS
from rtm_kd.utils.checkpoint import read_checkpoint, student_state_dict
from rtm_kd.utils.environment import machine, versions
from rtm_kd.visualization.plots import COLOURS, curve, drawing, finish, mark_detach

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

RUNS = {'teacher': 'teacher', 'plain': 'plain student', 'distilled': 'distilled student'}
NUM_PICTURES = 5
SCORE_THR = 0.3
# Of detections that overlap by more the picture shows the best, whatever their classes.
IOU_THR = 0.6
MAP = 'coco/bbox_mAP'


class Run:
    """What one run left in its folder.

    Args:
        folder (Path): Its work dir.
    """

    def __init__(self, folder: Path) -> None:
        self.cfg = Config.fromfile(str(next(folder.glob('*.py'))))
        log = next(folder.glob('*/vis_data/scalars.json'))
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        self.steps = [entry for entry in entries if 'loss' in entry]
        self.evaluations = [entry for entry in entries if MAP in entry]
        self.checkpoint = folder / Path((folder / 'last_checkpoint').read_text()).name
        self.max_epochs = self.cfg.train_cfg.max_epochs
        self.steps_per_epoch = self.steps[-1]['step'] / self.steps[-1]['epoch']
        # Tested on their own are the students alone, see tools/quickstart.sh.
        tests = sorted(folder.parent.glob(f'{folder.name}_test/*/*.json'))
        self.metrics = json.loads(tests[-1].read_text()) if tests else self.evaluations[-1]

    @property
    def detach_epoch(self) -> Optional[int]:
        """First epoch without distillation, counted from 0; None for an ordinary run."""
        hooks = [hook for hook in self.cfg.custom_hooks if 'detach_epoch' in hook]
        return hooks[0].detach_epoch if hooks else None

    def step_time(self, distilling: bool) -> float:
        """Median seconds of a training step with the teacher, or without it."""
        return statistics.median(
            entry['time']
            for entry in self.steps
            if any(name.startswith('distill.') for name in entry) == distilling
        )


def summarise(runs: dict[str, Run], folder: Path) -> dict[str, Any]:
    """Collect the numbers, as report.json has them."""
    result: dict[str, Any] = {
        'runs': {},
        'versions': versions(),
        'machine': machine(),
    }
    for name, run in runs.items():
        result['runs'][name] = {
            'val_mAP': run.metrics[MAP],
            'val_mAP_50': run.metrics[MAP + '_50'],
            'epochs': run.max_epochs,
            'steps': run.steps[-1]['step'],
            'step_time_s': round(run.step_time(distilling=False), 3),
            'checkpoint_MB': round(run.checkpoint.stat().st_size / 1e6, 1),
        }
    distilled = result['runs']['distilled']
    distilled['step_time_with_teacher_s'] = round(runs['distilled'].step_time(distilling=True), 3)
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
    """Put the numbers into a page."""
    distilled = result['runs']['distilled']
    gain = result['distillation_gain_mAP']
    lines = [
        '# Quickstart report',
        '',
        f"Distillation changed the student's val mAP by {gain:+.3f}, "
        f'from {result["runs"]["plain"]["val_mAP"]:.3f} to {distilled["val_mAP"]:.3f}. '
        'One short run each, on a small drawn dataset: another seed moves such numbers by some '
        'points.',
        '',
        '| | val mAP | mAP at IoU 0.5 | steps | s per step | checkpoint, MB |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for name, run in result['runs'].items():
        lines.append(
            f'| {RUNS[name]} | {run["val_mAP"]:.3f} | {run["val_mAP_50"]:.3f} | {run["steps"]} | '
            f'{run["step_time_s"]} | {run["checkpoint_MB"]} |'
        )
    lines += [
        '',
        f'With the teacher at work a step of the distilled student takes '
        f'{distilled["step_time_with_teacher_s"]} s; above is its time after the detach. '
        f'Converted, its checkpoint has {distilled["student_checkpoint_MB"]} MB: the weights, '
        "without the optimizer's state and the EMA copy.",
        '',
        'Curves: `curves.png`. Detections: `detections.png`.',
        '',
        '| | seconds |',
        '| --- | --- |',
    ]
    lines += [f'| {title} | {seconds} |' for title, seconds in result['seconds'].items()]
    versions = ', '.join(f'{name} {number}' for name, number in result['versions'].items())
    lines += ['', f'{result["machine"]}; {versions}.', '']
    return '\n'.join(lines)


def plot_curves(runs: dict[str, Run], path: Path) -> None:
    """Draw val mAP, the detectors' own loss and the distillation loss over the epochs."""
    panels = {
        'val mAP': (runs, map_points),
        'detection loss (cls + bbox)': (runs, own_loss_points),
        'distillation loss': (['distilled'], distillation_loss_points),
    }
    longest = max(run.max_epochs for run in runs.values())
    with drawing(13, 4, columns=len(panels)) as (figure, grid):
        for axes, (title, (names, points)) in zip(grid, panels.items()):
            for name in names:
                curve(axes, points(runs[name]), COLOURS[name], RUNS[name], title == 'val mAP')
            mark_detach(axes, runs['distilled'].detach_epoch)
            axes.set(xlim=(0, longest * 1.03))
            axes.set_ylim(bottom=0)
            finish(axes, title, x='epoch', legend=True)
        figure.savefig(path, dpi=110)


def map_points(run: Run) -> list:
    return [(entry['step'], entry[MAP]) for entry in run.evaluations]


def own_loss_points(run: Run) -> list:
    return [
        (
            entry['step'] / run.steps_per_epoch,
            sum(v for k, v in entry.items() if k.split('.')[-1] in ('loss_cls', 'loss_bbox')),
        )
        for entry in run.steps
    ]


def distillation_loss_points(run: Run) -> list:
    losses = [
        (entry['step'], [v for k, v in entry.items() if k.startswith('distill.')])
        for entry in run.steps
    ]
    return [(step / run.steps_per_epoch, sum(values)) for step, values in losses if values]


@torch.no_grad()
def plot_detections(runs: dict[str, Run], path: Path) -> None:
    """Draw the first val images: ground truth, then what each model finds."""
    init_default_scope('mmyolo')
    dataset = DATASETS.build(runs['plain'].cfg.test_dataloader.dataset)
    classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
    columns = ['ground truth', *RUNS.values()]
    figure, grid = plt.subplots(
        NUM_PICTURES,
        len(columns),
        figsize=(3 * len(columns), 3 * NUM_PICTURES + 0.5),
        layout='constrained',
    )
    samples = [dataset[i] for i in range(NUM_PICTURES)]
    results = [[sample['data_samples'].gt_instances for sample in samples]]
    for run in runs.values():
        model = _load(run)
        batch = {key: [sample[key] for sample in samples] for key in samples[0]}
        results.append([_best(found.pred_instances) for found in model.test_step(batch)])
    for column, title in enumerate(columns):
        grid[0][column].set_title(title, fontsize=13)
        for row, sample in enumerate(samples):
            axes = grid[row][column]
            axes.set_axis_off()
            image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
            axes.imshow(image, interpolation='bicubic')
            _draw_boxes(axes, results[column][row], classes, palette)
    figure.suptitle(f'The first {NUM_PICTURES} val images, detections scored {SCORE_THR} and up')
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _load(run: Run) -> torch.nn.Module:
    use_student(run.cfg)
    model = MODELS.build(run.cfg.model)
    model.load_state_dict(student_state_dict(read_checkpoint(str(run.checkpoint))['state_dict']))
    return model.eval()


def _best(instances):
    instances = instances[instances.scores >= SCORE_THR]
    return instances[nms(instances.bboxes, instances.scores, IOU_THR)]


def _draw_boxes(axes, instances, classes: tuple, palette: list) -> None:
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    scores = instances.get('scores', torch.ones(len(boxes)))
    for box, label, score in zip(boxes.tolist(), instances.labels.tolist(), scores.tolist()):
        x1, y1, x2, y2 = box
        colour = [channel / 255 for channel in palette[label]]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.8))
        text = classes[label] if 'scores' not in instances else f'{classes[label]} {score:.2f}'
        # Above the box, or inside where the image ends.
        inside = y1 < 9
        axes.text(
            min(max(x1, 0), 95),
            max(y1, 0) if inside else y1,
            text,
            fontsize=7.5,
            color='white',
            va='top' if inside else 'bottom',
            clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=1),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='with the work dirs teacher, plain and distilled')
    folder = parser.parse_args().folder
    runs = {name: Run(folder / name) for name in RUNS}
    result = summarise(runs, folder)
    (folder / 'report.json').write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    (folder / 'report.md').write_text(markdown(result), encoding='utf-8')
    plot_curves(runs, folder / 'curves.png')
    plot_detections(runs, folder / 'detections.png')
    print(f'report written to {folder}/report.md')


if __name__ == '__main__':
    main()
