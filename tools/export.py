"""Export a detector, or the student of a distillation, as one file to ship.

Example: python tools/export.py CONFIG work_dirs/my_run/best.pth --format onnx --with-nms
"""

import argparse

import rtm_kd  # noqa: F401, the fixes come before everything else

# isort: split
from mmengine.config import DictAction

from rtm_kd.apis.export import FORMATS, export
from rtm_kd.utils import report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the detector, or of the distillation')
    parser.add_argument(
        'checkpoint', help='checkpoint of either, for example best.pth, a path or URL'
    )
    parser.add_argument('--format', choices=FORMATS, required=True, help='file format')
    parser.add_argument(
        '--out-path', help='folder for NAME-HASH.EXT, default: that of the checkpoint'
    )
    parser.add_argument(
        '--half', action='store_true', help='store the weights and compute in float16'
    )
    parser.add_argument(
        '--with-nms',
        action='store_true',
        help="output detections, by the config's test_cfg, instead of the boxes of all priors",
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='accept any number of images, of any size that is a multiple of 32',
    )
    parser.add_argument(
        '--licence', help="licence to record in the file, default: that of the network's package"
    )
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
        print(f'written to {export(**vars(parse_args()))}')


if __name__ == '__main__':
    main()
