"""Convert a distillation checkpoint, ours or MMRazor's, to a plain one of its student.

Example: python tools/model_converters/convert_kd_ckpt_to_student.py work_dirs/epoch_300.pth
"""

import argparse

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.utils import report_usage_errors
from rtm_kd.utils.checkpoint import convert_to_student


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='checkpoint of a distillation')
    parser.add_argument(
        '--out-path', help='folder for NAME_student.pth, default: that of the checkpoint'
    )
    parser.add_argument('--inplace', action='store_true', help='replace the checkpoint instead')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with report_usage_errors():
        target = convert_to_student(args.checkpoint, args.out_path, args.inplace)
        print(f'student written to {target}')


if __name__ == '__main__':
    main()
