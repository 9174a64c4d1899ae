"""Time training steps of plain training, MMRazor's distillation and ours, interleaved.

Examples:
    python tools/benchmark.py tiny-s --size 320 --batch 4
    python tools/benchmark.py CONFIG --error CHECKPOINT --cfg-options teacher_ckpt=teacher.pth
    python tools/benchmark.py CONFIG --exported CHECKPOINT --threads 1
"""

import argparse
import json
import os
import re
import statistics
from pathlib import Path

device = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
device.add_argument('--device', choices=['cpu', 'cuda'], help='default: a GPU if there is one')
if device.parse_known_args()[0].device == 'cpu':
    # Before the imports below start CUDA.
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import rtm_kd  # noqa: E402, F401, the fixes come before everything else

# isort: split
import torch  # noqa: E402
from benchmarks import (  # noqa: E402
    PARTS,
    VARIANTS,
    benchmark,
    exported,
    fast_path_error,
    own_share,
    start_up,
)
from mmengine.config import DictAction  # noqa: E402

from rtm_kd.utils import UsageError, report_usage_errors  # noqa: E402
from rtm_kd.utils.files import atomic_write  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[device],
    )
    parser.add_argument(
        'config', help='tiny-s, s-m, m-l or l-x, timed on drawn images; or a distillation config'
    )
    parser.add_argument('--size', type=int, default=320, help='side of the images, in pixels')
    parser.add_argument('--batch', type=int, default=4, help='images per step')
    parser.add_argument('--steps', type=int, default=10, help='steps to time per variant')
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision, in all variants'
    )
    parser.add_argument(
        '--preloaded',
        action='store_true',
        help='load the images beforehand, so that a step does not include it',
    )
    parser.add_argument(
        '--threads', type=int, help="number of torch's threads, default: torch's choice"
    )
    parser.add_argument(
        '--variants', nargs='+', metavar='NAME', help='variants to time, default: all'
    )
    parser.add_argument(
        '--own-share',
        action='store_true',
        help='also time connectors and losses alone, batch 32 at 640 pixels',
    )
    parser.add_argument(
        '--start', action='store_true', help='also time train.py from its start to its first step'
    )
    parser.add_argument(
        '--error',
        metavar='CHECKPOINT',
        help='instead of timing, print how far the losses and gradients of each fast path are from '
        "the reference's, for this checkpoint of the distillation CONFIG, on its data",
    )
    parser.add_argument(
        '--exported',
        metavar='CHECKPOINT',
        help='instead of training steps, time inference of the detector of CONFIG on one image, in '
        'PyTorch and in each format of tools/export.py, on the CPU',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='with --error and --exported: change values of the config, see tools/train.py',
    )
    parser.add_argument('--json', help='also write the figures to this file')
    return parser.parse_args()


def print_steps(report: dict) -> None:
    print(', '.join(f'{name} {value}' for name, value in report['setting'].items()))
    parts = (*PARTS, 'other')
    rows = [
        ['variant', 's/step', '/ plain', *parts, 'peak MB', 'ckpt MB', '/ plain'],
        ['---'] * (len(parts) + 6),
    ]
    for name, result in report['results'].items():
        times = [f'{result["parts"][part]:.3f}' for part in parts]
        rows.append([name, f'{result["seconds"]:.3f}', f'{result["ratio"]:.3f}', *times])
        rows[-1] += [f'{result["memory"] / 1e6:.0f}', f'{result["checkpoint"] / 1e6:.1f}']
        rows[-1].append(f'{result["checkpoint_ratio"]:.3f}')
    for row in rows:
        print(f'| {" | ".join(row)} |')


def print_own_share(report: dict) -> None:
    for scope, figures in report.items():
        seconds, memory = (figures[key] / report['mmrazor'][key] for key in ('seconds', 'memory'))
        print(
            f'{scope}: {figures["seconds"]:.3f} s, {figures["memory"] / 1e6:.0f} MB; '
            f'/ mmrazor: {seconds:.2f} of the time, {memory:.2f} of the memory'
        )


def print_start(report: dict) -> None:
    for name, seconds in report.items():
        print(f'start, {name}: {seconds:.1f} s, / plain: {seconds / report["plain"]:.2f}')


def print_error(report: dict) -> None:
    for name, errors in report.items():
        figures = [
            f'{key} mean {statistics.mean(values):.1e}, '
            f'median {statistics.median(values):.1e}, largest {max(values):.1e}'
            for key, values in errors.items()
        ]
        print(f'{name}: ' + '; '.join(figures))


def print_exported(report: dict) -> None:
    for name, figures in report.items():
        ratio = figures['seconds'] / report['pytorch']['seconds']
        print(
            f'{name}: {figures["seconds"] * 1000:.1f} ms, / pytorch: {ratio:.2f}, '
            f'{figures["bytes"] / 1e6:.1f} MB'
        )


def time_training(args: argparse.Namespace) -> None:
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda: torch finds no GPU here')
    config, data_root = args.config, None
    if pair := re.fullmatch(r'(\w+)-(\w+)', config):
        config = str(ROOT / f'configs/kd_{pair[1]}_rtmdet_{pair[2]}_neck_300e_coco.py')
        data_root = 'data/drawn/'
    options = {name: getattr(args, name) for name in ('size', 'batch', 'steps', 'amp', 'preloaded')}
    variants = tuple(args.variants or VARIANTS)
    report = benchmark(config, variants=variants, data_root=data_root, **options)
    print_steps(report)
    if args.own_share:
        report['own_share'] = own_share()
        print_own_share(report['own_share'])
    if args.start:
        report['start'] = start_up(config, str(ROOT / 'tools/train.py'), data_root)
        print_start(report['start'])
    if args.json:
        with atomic_write(Path(args.json)) as part:
            part.write_text(json.dumps(report, indent=2))


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with report_usage_errors():
        if args.error:
            print_error(fast_path_error(args.config, args.error, args.cfg_options))
        elif args.exported:
            print_exported(exported(args.config, args.exported, args.cfg_options, args.steps))
        else:
            time_training(args)


if __name__ == '__main__':
    main()
