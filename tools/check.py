"""Look at a config before a long run: its data, its teacher, one step, and the time it will take.

Example: python tools/check.py configs/custom_dataset/kd_student_teacher.py
"""

import argparse

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.apis.check import check
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='train config file path')
    parser.add_argument(
        '--images',
        type=int,
        default=200,
        help='validation images on which the teacher is tested, 0 for none',
    )
    parser.add_argument('--amp', action='store_true', help='time steps in mixed precision')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as train.py'
    )
    return parser.parse_args()


def main() -> None:
    with report_usage_errors():
        check(**vars(parse_args()))


if __name__ == '__main__':
    main()
