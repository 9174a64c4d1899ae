"""Check a config before a long run: its data, its teacher, one step, and the hours it will take.

Example: python tools/check.py configs/custom_dataset/kd_student_teacher.py
"""

import argparse

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.apis.check import check
from rtm_kd.utils import report_usage_errors, say


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the distillation, or of a detector')
    parser.add_argument(
        '--images',
        type=int,
        default=200,
        help='validation images to test the teacher on, 0 for none (default: %(default)s)',
    )
    parser.add_argument('--amp', action='store_true', help='time steps in mixed precision')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, see tools/train.py',
    )
    return parser.parse_args()


def main() -> None:
    with report_usage_errors():
        check(say=say, **vars(parse_args()))


if __name__ == '__main__':
    main()
