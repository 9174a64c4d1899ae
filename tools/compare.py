"""Measure whether distillation helps: train the student with and without its teacher.

Example: python tools/compare.py configs/custom_dataset/kd_student_teacher.py --seeds 3

After Ctrl-C or a kill, the same command resumes.
"""

import argparse
import os

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.comparison.compare import compare
from rtm_kd.comparison.report import terminal_table
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the distillation')
    parser.add_argument(
        '--seeds',
        type=int,
        default=3,
        help='pairs of runs (default: %(default)s); a single pair has no interval, and more can be '
        'added later',
    )
    parser.add_argument('--work-dir', help='folder for all runs, default: work_dirs/CONFIG_compare')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--test',
        action='store_true',
        help='evaluate on the test images instead of the validation images',
    )
    parser.add_argument(
        '--restart', action='store_true', help='delete the runs in the work dir and start again'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config for both sides, see tools/train.py; max_epochs=30 sets '
        'the budget',
    )
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    with report_usage_errors('the same command continues'):
        summary = compare(**args)
    print(terminal_table(summary))
    print(f'report written to {os.path.join(summary.setting["work_dir"], "comparison.html")}')


if __name__ == '__main__':
    main()
