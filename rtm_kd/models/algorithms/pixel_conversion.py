"""Conversion of the student's images to the teacher's normalisation."""

import functools
from collections.abc import Callable
from typing import Optional

import torch
from mmengine.model import ImgDataPreprocessor
from torch import nn

from rtm_kd.utils.internals import normalises, swaps_channels


def pixel_conversion(
    source: nn.Module, target: nn.Module
) -> Optional[Callable[[torch.Tensor], torch.Tensor]]:
    """Return what turns the images of one data preprocessor into those of another.

    RTMDet normalises BGR by mean and deviation, YOLOv8 scales RGB to [0, 1]: unconverted, a teacher
    of one family would get garbage from the preprocessor of the other.

    Args:
        source (nn.Module): The preprocessor that made the images.
        target (nn.Module): The preprocessor that the model was trained with.

    Returns:
        Callable | None: A function of (N, 3, H, W) images, None if there is nothing to do, or
        one of the two is not an ``ImgDataPreprocessor``.
    """
    if not all(isinstance(part, ImgDataPreprocessor) for part in (source, target)):
        return None
    flip = swaps_channels(source) != swaps_channels(target)
    (mean, std), (target_mean, target_std) = _mean_and_std(source), _mean_and_std(target)
    if flip:
        mean, std = mean.flip(0), std.flip(0)
    scale, shift = std / target_std, (mean - target_mean) / target_std
    if not flip and bool((scale == 1).all() and (shift == 0).all()):
        return None
    return functools.partial(_convert, scale=scale.tolist(), shift=shift.tolist(), flip=flip)


def _mean_and_std(preprocessor: ImgDataPreprocessor) -> tuple[torch.Tensor, torch.Tensor]:
    if not normalises(preprocessor):
        return torch.zeros(3), torch.ones(3)
    values = preprocessor.mean.double().flatten(), preprocessor.std.double().flatten()
    return tuple(value.cpu().expand(3) for value in values)


def _convert(
    images: torch.Tensor, scale: list[float], shift: list[float], flip: bool
) -> torch.Tensor:
    if flip:
        images = images.flip(1)
    scale, shift = images.new_tensor([scale, shift]).view(2, 1, 3, 1, 1)
    return images * scale + shift
