"""Convert Pascal VOC XML annotations to COCO JSON.

tools/distill.py does this automatically. Nothing is written into the dataset.

Example: python tools/dataset_converters/voc2coco.py data/VOCdevkit/VOC2012 data/voc_coco
"""

import argparse
from pathlib import Path

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.datasets.converters import VocAnnotations, convert_dataset
from rtm_kd.utils import UsageError, report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', help='the folder of the dataset, or one with XML files')
    parser.add_argument('out_dir', help='folder for a JSON file of each split')
    parser.add_argument('--images', help='folder of the images, default: JPEGImages/')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with report_usage_errors():
        path = Path(args.data)
        if not path.is_dir():
            raise UsageError(f'{path} is not a directory')
        images = Path(args.images) if args.images else None
        for line in convert_dataset(VocAnnotations(path, path, images), args.out_dir):
            print(line)


if __name__ == '__main__':
    main()
