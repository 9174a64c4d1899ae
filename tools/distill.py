"""From a folder of one's own to a distilled detector: write the configs, check them, train.

Annotations may be COCO's JSON, YOLO's txt or VOC's XML. The configs are yours from then on:
change them, and train them with tools/train.py.

Examples:
    python tools/distill.py --data-root data/bccd --student tiny --teacher s --train-teacher
    python tools/distill.py --data-root data/bccd --train-ann annotations/all.json \\
        --val-fraction 0.2 --student s --teacher m --teacher-ckpt coco --dry-run
"""

import argparse
from pathlib import Path

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.distill import distill
from rtm_kd.utils import report_usage_errors

TEMPLATES = Path(__file__).resolve().parents[1] / 'configs/custom_dataset'
SIZES = ('tiny', 's', 'm', 'l', 'x')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group('data')
    data.add_argument('--data-root', required=True, help='folder of the dataset')
    data.add_argument(
        '--train-ann',
        help='annotations to train on, a file or folder in the data root; default: looked for',
    )
    data.add_argument('--val-ann', help='annotations to evaluate on; default: looked for')
    data.add_argument('--train-img', help='folder of the images; default: found by their names')
    data.add_argument('--val-img', help='folder of the validation images, if it is another')
    data.add_argument(
        '--classes', nargs='+', help='classes to take, in this order; default: all of them'
    )
    data.add_argument(
        '--val-fraction',
        type=float,
        help='evaluate on this share of the training images; copies stay on one side',
    )
    data.add_argument('--seed', type=int, default=0, help='of the split that --val-fraction makes')
    data.add_argument(
        '--train-on-background',
        action='store_true',
        help='train on images without a box as well, against false alarms',
    )
    models = parser.add_argument_group('models')
    models.add_argument('--student', required=True, choices=SIZES)
    models.add_argument('--teacher', required=True, choices=SIZES)
    models.add_argument(
        '--teacher-ckpt',
        help="the teacher's weights, a file or URL, or coco for those that were published",
    )
    models.add_argument(
        '--train-teacher',
        action='store_true',
        help='train a teacher on these data first, from --teacher-ckpt if that is given',
    )
    models.add_argument('--student-ckpt', help='weights that the student starts from, likewise')
    training = parser.add_argument_group('training')
    training.add_argument('--epochs', type=int, help='default: by the number of images')
    training.add_argument('--img-size', type=int, default=640, help='side, in pixels')
    training.add_argument('--batch-size', type=int, help='default: 8, less for few images')
    training.add_argument('--lr', type=float, help='default: by the batch size')
    training.add_argument('--num-workers', type=int, default=2, help='processes that load images')
    training.add_argument('--amp', action='store_true', help='train with mixed precision')
    output = parser.add_argument_group('output')
    output.add_argument('--name', help="of the data; default: its folder's")
    output.add_argument(
        '--work-dir', default='work_dirs', help="the dir for each run's work dir and for new data"
    )
    output.add_argument('--config-out', help='the dir for the configs; default: configs/NAME')
    output.add_argument('--overwrite', action='store_true', help='replace configs that are there')
    output.add_argument('--resume', action='store_true', help='go on with what was begun')
    output.add_argument('--dry-run', action='store_true', help='write and check, but do not train')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    with report_usage_errors('the same command with --resume goes on from here'):
        distill(templates=str(TEMPLATES), **args)


if __name__ == '__main__':
    main()
