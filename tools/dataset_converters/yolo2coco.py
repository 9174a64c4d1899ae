"""Convert YOLO txt annotations to COCO JSON.

tools/distill.py does this automatically. Nothing is written into the dataset.

Example: python tools/dataset_converters/yolo2coco.py data/mine/data.yaml data/mine_coco
"""

import argparse
from pathlib import Path

import rtm_kd  # noqa: F401, the fixes come before everything else
from rtm_kd.datasets.converters import YoloAnnotations, convert_dataset
from rtm_kd.utils import UsageError, report_usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', help='data.yaml, or the folder of the dataset')
    parser.add_argument('out_dir', help='folder for a JSON file of each split')
    parser.add_argument('--images', help='folder of the images, default: images/')
    parser.add_argument('--classes', nargs='+', help='class names, if no file has them')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with report_usage_errors():
        path = Path(args.data)
        if not path.exists():
            raise UsageError(f'{path} does not exist')
        root = path if path.is_dir() else path.parent
        images = Path(args.images) if args.images else None
        for line in convert_dataset(
            YoloAnnotations(path, root, images, args.classes), args.out_dir
        ):
            print(line)


if __name__ == '__main__':
    main()
