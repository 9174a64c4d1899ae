"""Train or distil a detector.

Example: python tools/train.py configs/kd_tiny_rtmdet_s_neck_300e_coco.py --amp
"""

import argparse
import os

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.apis.train import train
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the detector, or of the distillation')
    parser.add_argument(
        '--work-dir',
        help="folder for logs and checkpoints, default: the config's work_dir or work_dirs/CONFIG",
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by the images of a step, of all processes, over '
        'auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the newest one in the work dir',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, for example max_epochs=30 '
        'optim_wrapper.optimizer.lr=0.001 img_scale="(320, 320)"; values that the config computes '
        'from them follow',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what starts the processes of a distributed run; dist_train.sh and slurm_train.sh '
        'set it',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    with report_usage_errors('--resume continues from the last checkpoint'):
        train(**args)


if __name__ == '__main__':
    main()
