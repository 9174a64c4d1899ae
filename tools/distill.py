"""Distil a detector on a folder of your own: write the configs, check them, train.

Annotations may be COCO JSON, YOLO txt or Pascal VOC XML. The configs are yours to edit; train an
edited one with tools/train.py.

Examples:
    python tools/distill.py --data-root data/bccd --student tiny --teacher s --train-teacher
    python tools/distill.py --data-root data/bccd --train-ann annotations/all.json \\
        --val-fraction 0.2 --student s --teacher m --teacher-ckpt coco --dry-run
"""

import argparse
from pathlib import Path

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.apis.distill import SIZES, distill
from rtm_kd.utils import report_usage_errors, say

TEMPLATES = Path(__file__).resolve().parents[1] / 'configs/custom_dataset'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group('data')
    data.add_argument('--data-root', required=True, help='folder of the dataset')
    data.add_argument(
        '--train-ann',
        help='annotations to train on, a file or folder in the data root; default: searched for',
    )
    data.add_argument('--val-ann', help='annotations to evaluate on; default: searched for')
    data.add_argument(
        '--train-img', help='folder of the images; default: found by their file names'
    )
    data.add_argument(
        '--val-img', help='folder of the validation images; default: that of --train-img'
    )
    data.add_argument('--classes', nargs='+', help='classes to use, in this order; default: all')
    data.add_argument(
        '--val-fraction',
        type=float,
        help='evaluate on this share of the training images; copies of an image stay together',
    )
    data.add_argument(
        '--seed', type=int, default=0, help='seed of the split that --val-fraction makes'
    )
    data.add_argument(
        '--train-on-background',
        action='store_true',
        help='also train on images without a box, against false positives',
    )
    models = parser.add_argument_group('models')
    models.add_argument('--student', required=True, choices=SIZES, help='size of the student')
    models.add_argument('--teacher', required=True, choices=SIZES, help='size of the teacher')
    models.add_argument(
        '--teacher-ckpt',
        help="the teacher's weights: a file, a URL, or coco for the published COCO weights",
    )
    models.add_argument(
        '--train-teacher',
        action='store_true',
        help='first train a teacher on these data, starting from --teacher-ckpt if given',
    )
    models.add_argument(
        '--student-ckpt',
        help='weights that the student starts from: a file, a URL, coco for the published COCO '
        'weights (the distilled ones if they exist), or coco-plain for the undistilled ones',
    )
    training = parser.add_argument_group('training')
    training.add_argument(
        '--epochs', type=int, help='epochs of the student; default: by the number of images'
    )
    training.add_argument(
        '--teacher-epochs',
        type=int,
        help='epochs of the teacher, with --train-teacher; default: twice those of the student if '
        'it starts from scratch',
    )
    training.add_argument(
        '--img-size',
        type=int,
        default=640,
        help='side of the square input in pixels, a multiple of 32 (default: %(default)s)',
    )
    training.add_argument(
        '--batch-size', type=int, help='images per step; default: 8, fewer for small datasets'
    )
    training.add_argument('--lr', type=float, help='learning rate; default: by the batch size')
    training.add_argument(
        '--num-workers',
        type=int,
        default=2,
        help='processes that load images (default: %(default)s)',
    )
    training.add_argument('--amp', action='store_true', help='train with mixed precision')
    output = parser.add_argument_group('output')
    output.add_argument('--name', help='name of the dataset; default: the name of its folder')
    output.add_argument(
        '--work-dir',
        default='work_dirs',
        help='parent of the work dirs, which are named after the configs, and of converted '
        'annotations (default: %(default)s)',
    )
    output.add_argument('--config-out', help='folder for the configs; default: configs/NAME')
    output.add_argument('--overwrite', action='store_true', help='replace existing configs')
    output.add_argument('--resume', action='store_true', help='resume an interrupted run')
    output.add_argument('--dry-run', action='store_true', help='write and check, but do not train')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    with report_usage_errors('the same command with --resume continues'):
        distill(say, templates=str(TEMPLATES), **args)


if __name__ == '__main__':
    main()
