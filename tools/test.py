"""Evaluate a detector, or the student of a distillation.

Example: python tools/test.py configs/kd_tiny_rtmdet_s_neck_300e_coco.py work_dirs/epoch_300.pth
"""

import argparse
import os

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.apis.test import test
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the detector, or of the distillation')
    parser.add_argument(
        'checkpoint', help='checkpoint of the distillation or of the student, a path or URL'
    )
    parser.add_argument('--work-dir', help='folder for the metrics')
    parser.add_argument('--out', help='save the raw predictions to this .pkl file')
    parser.add_argument(
        '--json-prefix', help='write predictions for a test server instead of evaluating them'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation, with tta_model and tta_pipeline of the config',
    )
    parser.add_argument('--show', action='store_true', help='show the detections')
    parser.add_argument(
        '--show-dir', help='save images with the detections to WORK_DIR/TIMESTAMP/SHOW_DIR'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each image')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, see tools/train.py',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what starts the processes of a distributed run; dist_test.sh sets it',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    with report_usage_errors():
        test(**args)


if __name__ == '__main__':
    main()
