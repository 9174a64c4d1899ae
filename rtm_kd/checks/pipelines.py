"""Whether images are brought to the model's size in training and testing alike."""

from dataclasses import dataclass
from numbers import Real
from typing import Any, Optional

from mmengine.config import Config

from rtm_kd.utils.config import bare_type


def check_pipelines(cfg: Config) -> list[str]:
    """Find where images are brought to the model's size in another way than in training.

    A detector may not survive it: RTMDet that was trained at 256 pixels on images padded below
    and on the right had a thirtieth of its mAP on the same ones padded on all sides.

    Args:
        cfg (Config): The whole config.

    Returns:
        list[str]: A sentence for each difference; empty if there is none.
    """
    first = shaping_of(cfg, 'train')
    last, when = first, 'training'
    found = []
    for hook in cfg.get('custom_hooks') or []:
        if bare_type(hook) == 'PipelineSwitchHook':
            last = _shaping(_whole_pipeline(dict(pipeline=hook['switch_pipeline'])))
            when = 'the last epochs'
            if first.size and last.size and first.size != last.size:
                found.append(
                    f'training begins with images of {_said(first.size)} pixels and ends with '
                    f'{_said(last.size)}'
                )
    splits: dict[str, list[str]] = {}
    for split in ('val', 'test'):
        tested = shaping_of(cfg, split)
        differences = [
            f'{what} {_said(its)} instead of {_said(mine)}'
            for what, mine, its in (
                ('size', last.size, tested.size),
                ('shape', last.shape, tested.shape),
                ('padding', last.padding, tested.padding),
                ('colour of the padding', last.colour, tested.colour),
            )
            if mine is not None and its is not None and mine != its
        ]
        if differences:
            splits.setdefault(', '.join(differences), []).append(split)
    for difference, names in splits.items():
        found.append(
            f'the pipeline of {" and ".join(names)} brings images to size in another way than that '
            f"of {when} ({difference}); MMYOLO's recipes for COCO live with it, but with few or "
            'small images it can cost all of the mAP: let both end in the same resizing and '
            'padding, as in configs/custom_dataset'
        )
    return found


@dataclass
class Shaping:
    """How a pipeline brings images to the model's size; None where it does not say."""

    size: Optional[tuple] = None  # width, height
    padded: Optional[tuple] = None  # the same, of what all images are padded to
    shape: Optional[str] = None
    padding: Optional[str] = None
    colour: Optional[tuple] = None


def shaping_of(cfg: Config, split: str) -> Shaping:
    """Return how the images of a split are brought to the model's size.

    Args:
        cfg (Config): The whole config.
        split (str): ``'train'``, ``'val'`` or ``'test'``.
    """
    return _shaping(_whole_pipeline((cfg.get(f'{split}_dataloader') or {}).get('dataset')))


def _shaping(pipeline: list[dict]) -> Shaping:
    shaping = Shaping()
    for transform in pipeline:
        kind = bare_type(transform)
        if kind == 'LetterResize':
            shaping.size = _size(transform.get('scale'))
            stretched = transform.get('stretch_only', False)
            shaping.shape = 'stretched' if stretched else 'as it is'
            if not stretched:
                shaping.padding = 'on all sides'
                shaping.padded = shaping.size
                shaping.colour = _colour(transform.get('pad_val', 0))
        elif kind == 'Pad':
            # Without a size to a multiple of it, or to a square.
            shaping.padded = _size(transform.get('size'))
            shaping.size = shaping.padded or shaping.size
            shaping.padding = 'below and on the right'
            shaping.colour = _colour(transform.get('pad_val', 0))
        elif kind in ('Resize', 'FixScaleResize', 'YOLOv5KeepRatioResize', 'RandomResize'):
            keeps = transform.get('keep_ratio', kind == 'YOLOv5KeepRatioResize')
            shaping.shape = 'as it is' if keeps else 'stretched'
            if kind != 'RandomResize':
                shaping.size = _size(transform.get('scale'))
        elif kind == 'FixShapeResize':
            shaping.size = (transform.get('width'), transform.get('height'))
            shaping.shape = 'as it is' if transform.get('keep_ratio', True) else 'stretched'
        elif kind == 'RandomCrop' and transform.get('crop_type', 'absolute') == 'absolute':
            shaping.size = _size(transform.get('crop_size'))
        elif kind == 'Mosaic':
            shaping.size = _size(transform.get('img_scale', (640, 640)))
    return shaping


def _whole_pipeline(dataset: Any) -> list[dict]:
    """The transforms of a dataset and, after them, of those that it is wrapped in."""
    if not isinstance(dataset, dict):
        return []
    own = dataset.get('pipeline')
    own = [transform for transform in own if isinstance(transform, dict)] if own else []
    return _whole_pipeline(dataset.get('dataset')) + own


def _size(size: Any) -> Optional[tuple]:
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _colour(value: Any) -> Optional[tuple]:
    value = value.get('img', 0) if isinstance(value, dict) else value
    if isinstance(value, Real):
        return (value,) * 3
    return tuple(value) if isinstance(value, (list, tuple)) else None


def _said(value: Any) -> str:
    return value if isinstance(value, str) else 'x'.join(map(str, value))
