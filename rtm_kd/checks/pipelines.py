"""Comparison of how training and testing resize images to the model's size."""

from dataclasses import dataclass
from numbers import Real
from typing import Any, Optional

from mmengine.config import Config

from rtm_kd.utils.config import bare_type


def check_pipelines(cfg: Config) -> list[str]:
    """Find where images are brought to the model's size in another way than in training.

    A detector may not survive it: RTMDet trained at 256 pixels on images padded below and on
    the right had a thirtieth of its mAP on the same images padded on all sides.

    Returns:
        list[str]: A sentence for each difference.
    """
    first = last = shaping_of(cfg, 'train')
    when, found = 'training', []
    for hook in cfg.get('custom_hooks') or []:
        if bare_type(hook) == 'PipelineSwitchHook':
            last, when = _shaping(_transforms(hook['switch_pipeline'])), 'the last epochs'
            if first.size and last.size and first.size != last.size:
                found.append(
                    f'training begins with images of {_text(first.size)} pixels and ends with '
                    f'{_text(last.size)}'
                )
    splits: dict[str, list[str]] = {}
    for split in ('val', 'test'):
        tested = shaping_of(cfg, split)
        differences = []
        for what in ('size', 'shape', 'padding', 'colour'):
            mine, its = getattr(last, what), getattr(tested, what)
            if mine is not None and its is not None and mine != its:
                name = 'colour of the padding' if what == 'colour' else what
                differences.append(f'{name} {_text(its)} instead of {_text(mine)}')
        if differences:
            splits.setdefault(', '.join(differences), []).append(split)
    for difference, names in splits.items():
        found.append(
            f'the pipeline of {" and ".join(names)} resizes images in another way than that '
            f"of {when} ({difference}); MMYOLO's recipes for COCO live with it, but with few or "
            'small images it can cost all of the mAP: let both end in the same resizing and '
            'padding, as in configs/custom_dataset'
        )
    return found


@dataclass
class Shaping:
    """How a pipeline resizes images to the model's size; None where it does not say."""

    size: Optional[tuple] = None  # width, height
    padded: Optional[tuple] = None  # the same, of what all images are padded to
    shape: Optional[str] = None
    padding: Optional[str] = None
    colour: Optional[tuple] = None


def shaping_of(cfg: Config, split: str) -> Shaping:
    """Return how the images of ``'train'``, ``'val'`` or ``'test'`` get to the model's size."""
    dataset, pipeline = (cfg.get(f'{split}_dataloader') or {}).get('dataset'), []
    while isinstance(dataset, dict):
        # The transforms of a wrapper come after those of the dataset in it.
        pipeline = _transforms(dataset.get('pipeline')) + pipeline
        dataset = dataset.get('dataset')
    return _shaping(pipeline)


def _transforms(pipeline: Any) -> list[dict]:
    return [transform for transform in pipeline or [] if isinstance(transform, dict)]


def _shaping(pipeline: list[dict]) -> Shaping:
    shaping = Shaping()
    for transform in pipeline:
        kind = bare_type(transform)
        get = transform.get
        if kind == 'LetterResize':
            shaping.size = _size(get('scale'))
            shaping.shape = 'stretched' if get('stretch_only', False) else 'as it is'
            if not get('stretch_only', False):
                shaping.padding, shaping.padded = 'on all sides', shaping.size
                shaping.colour = _colour(get('pad_val', 0))
        elif kind == 'Pad':
            # Without a size, to a multiple of one or to a square.
            shaping.padding, shaping.padded = 'below and on the right', _size(get('size'))
            shaping.size = shaping.padded or shaping.size
            shaping.colour = _colour(get('pad_val', 0))
        elif kind in ('Resize', 'FixScaleResize', 'YOLOv5KeepRatioResize', 'RandomResize'):
            keeps = get('keep_ratio', kind == 'YOLOv5KeepRatioResize')
            shaping.shape = 'as it is' if keeps else 'stretched'
            if kind != 'RandomResize':
                shaping.size = _size(get('scale'))
        elif kind == 'FixShapeResize':
            shaping.size = (get('width'), get('height'))
            shaping.shape = 'as it is' if get('keep_ratio', True) else 'stretched'
        elif kind == 'RandomCrop' and get('crop_type', 'absolute') == 'absolute':
            shaping.size = _size(get('crop_size'))
        elif kind == 'Mosaic':
            shaping.size = _size(get('img_scale', (640, 640)))
    return shaping


def _size(size: Any) -> Optional[tuple]:
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _colour(value: Any) -> Optional[tuple]:
    value = value.get('img', 0) if isinstance(value, dict) else value
    if isinstance(value, Real):
        return (value,) * 3
    return tuple(value) if isinstance(value, (list, tuple)) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else 'x'.join(map(str, value))
