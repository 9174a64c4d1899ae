"""Time training steps of plain training, MMRazor's distillation and ours, interleaved.

Examples:
    python tools/benchmark.py tiny-s --size 320 --batch 4
    python tools/benchmark.py CONFIG --error CHECKPOINT --cfg-options teacher_ckpt=teacher.pth
    python tools/benchmark.py CONFIG --exported CHECKPOINT --threads 1
"""

import argparse
import json
import os
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
PAIRS = ('tiny-s', 's-m', 'm-l', 'l-x')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[device],
    )
    parser.add_argument(
        'config', help=f'{", ".join(PAIRS)}, timed on drawn images; or a distillation config'
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
        help='instead of timing, print how far losses and gradients of each fast path are from '
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


def print_error(args: argparse.Namespace) -> None:
    for name, error in fast_path_error(args.config, args.error, args.cfg_options).items():
        figures = [
            f'{key} mean {statistics.mean(values):.1e}, '
            f'median {statistics.median(values):.1e}, largest {max(values):.1e}'
            for key, values in error.items()
        ]
        print(f'{name}: ' + '; '.join(figures))


def print_exported(args: argparse.Namespace) -> None:
    report = exported(args.config, args.exported, args.cfg_options, args.steps)
    for name, figures in report.items():
        ratio = figures['seconds'] / report['pytorch']['seconds']
        print(
            f'{name}: {figures["seconds"] * 1000:.1f} ms, / pytorch: {ratio:.2f}, '
            f'{figures["bytes"] / 1e6:.1f} MB'
        )


def print_steps(args: argparse.Namespace) -> None:
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda: torch finds no GPU here')
    config, data_root = args.config, None
    if args.config in PAIRS:
        student, teacher = args.config.split('-')
        config = str(ROOT / f'configs/kd_{student}_rtmdet_{teacher}_neck_300e_coco.py')
        data_root = 'data/drawn/'
    report = benchmark(
        config,
        size=args.size,
        batch=args.batch,
        steps=args.steps,
        amp=args.amp,
        preloaded=args.preloaded,
        variants=tuple(args.variants or VARIANTS),
        data_root=data_root,
    )
    print(report['setting'])
    print_table(report['results'])
    if args.own_share:
        report['own_share'] = share = own_share()
        for scope, figures in share.items():
            print(
                f'{scope}: {figures["seconds"]:.3f} s, {figures["memory"] / 1e6:.0f} MB; '
                f'/ mmrazor: {figures["seconds"] / share["mmrazor"]["seconds"]:.2f} of the '
                f'time, {figures["memory"] / share["mmrazor"]["memory"]:.2f} of the memory'
            )
    if args.start:
        report['start'] = start = start_up(config, str(ROOT / 'tools/train.py'), data_root)
        for name, seconds in start.items():
            print(f'start, {name}: {seconds:.1f} s, / plain: {seconds / start["plain"]:.2f}')
    if args.json:
        with atomic_write(Path(args.json)) as part:
            part.write_text(json.dumps(report, indent=2))


def print_table(results: dict) -> None:
    heads = ['variant', 's/step', '/ plain', *PARTS, 'other', 'peak MB', 'ckpt MB', '/ plain']
    rows = [heads, ['---'] * len(heads)]
    for name, result in results.items():
        times = [f'{result["parts"][part]:.3f}' for part in (*PARTS, 'other')]
        cells = [name, f'{result["seconds"]:.3f}', f'{result["ratio"]:.3f}', *times]
        cells += [f'{result["memory"] / 1e6:.0f}', f'{result["checkpoint"] / 1e6:.1f}']
        rows.append([*cells, f'{result["checkpoint_ratio"]:.3f}'])
    print('\n'.join(f'| {" | ".join(row)} |' for row in rows))


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with report_usage_errors():
        if args.error:
            print_error(args)
        elif args.exported:
            print_exported(args)
        else:
            print_steps(args)


if __name__ == '__main__':
    main()
