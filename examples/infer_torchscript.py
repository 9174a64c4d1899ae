"""Detect objects in a photograph with a TorchScript file of ``tools/export.py --with-nms``.

Needs torch, numpy and Pillow, and neither torchvision nor a package of OpenMMLab.

Example: python examples/infer_torchscript.py model.pt photo.jpg
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image, ImageOps


def letterbox(path: str, about: dict) -> tuple[np.ndarray, list[float], list[int]]:
    """Resize and pad a photograph as the exported file describes it.

    Returns:
        tuple: The image, uint8 (3, height, width) in RGB; the factors that its width and height
        were scaled by; the pixels added above, below, on the left and on the right.
    """
    width, height = about['input_size']
    with Image.open(path) as file:
        photo = ImageOps.exif_transpose(file).convert('RGB')
    if about['resizing'] == 'stretched':
        image = photo.resize((width, height), Image.BILINEAR)
        scales = [width / photo.width, height / photo.height]
        return np.asarray(image).transpose(2, 0, 1), scales, [0, 0, 0, 0]
    left, top = about['centering']
    scale = min(width / photo.width, height / photo.height)
    x, y = width - round(photo.width * scale), height - round(photo.height * scale)
    colour = tuple(about['padding_colour'])
    image = ImageOps.pad(photo, (width, height), Image.BILINEAR, colour, (left, top))
    padding = [round(y * top), y - round(y * top), round(x * left), x - round(x * left)]
    return np.asarray(image).transpose(2, 0, 1), [scale, scale], padding


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='TorchScript file with NMS')
    parser.add_argument('photo', help='image file to detect objects in')
    parser.add_argument('--score', type=float, default=0.3, help='lowest score to print')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    files = {'metadata.json': ''}
    # A CPU has no fast float16: a file of --half runs there in float32.
    model = torch.jit.load(args.model, map_location='cpu', _extra_files=files).float()
    about = json.loads(files['metadata.json'])
    image, scales, padding = letterbox(args.photo, about)
    _, boxes, scores, labels = model(
        torch.from_numpy(image[None].copy()),
        torch.tensor([scales]),
        torch.tensor([padding]),
    )
    detected = (scores[0] >= args.score) & (labels[0] >= 0)
    for box, score, label in zip(boxes[0][detected], scores[0][detected], labels[0][detected]):
        print(about['classes'][label], f'{score:.3f}', *box.numpy().round(1))
    if not detected.any():
        print(f'no detection with a score of {args.score:g} or more')


if __name__ == '__main__':
    main()
