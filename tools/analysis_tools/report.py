"""Write an HTML page on a training: curves, detections, attention and settings.

Example: python tools/analysis_tools/report.py work_dirs/kd_student_teacher \\
    --plain work_dirs/rtmdet_student
"""

import argparse

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.report import report
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='work_dir',
        help='work dir of a running, finished or interrupted training; several are shown side by '
        'side',
    )
    parser.add_argument('--plain', help='work dir of the student trained without a teacher')
    parser.add_argument('--out', help='file to write (default: report.html in the first work dir)')
    parser.add_argument(
        '--images',
        type=int,
        default=4,
        help='number of validation images to show, the worst of 20 times as many (default: '
        '%(default)s). Use 0 for an untrusted work dir: they run code that its config names',
    )
    parser.add_argument(
        '--device', default='cpu', help='device of the detectors (default: %(default)s)'
    )
    return parser.parse_args()


def main() -> None:
    with report_usage_errors():
        print(f'report written to {report(**vars(parse_args()))}')


if __name__ == '__main__':
    main()
