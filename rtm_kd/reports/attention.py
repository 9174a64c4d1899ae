"""Attention maps of detectors: computing, comparing and drawing them."""

from collections.abc import Mapping
from typing import Any, Optional

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement

from rtm_kd.models.distillers.recorder import Records

# Attention is shown as a multiple of an even spread, from one part in this many up to this many.
_RANGE = 4.0
# Brightness of the image, and how much of it shade and glow hide at the ends.
_GREY = 0.85
_SHADE = 0.85
_OPACITY = 0.85


def spatial_attention(feature: torch.Tensor) -> torch.Tensor:
    r"""Return how a feature map's attention is spread over the image.

    Each channel is normalised over the positions, as in PKD, and goes through a softmax over
    them, which gives the distribution :math:`\phi` that
    :func:`~rtm_kd.models.losses.channel_wise_divergence` compares. The mean over the channels
    makes maps with different numbers of channels comparable.

    Args:
        feature (Tensor): (N, C, H, W).

    Returns:
        Tensor: (N, H, W), in float32; it sums to one over the positions.
    """
    z = feature.float().flatten(2)
    z = (z - z.mean(2, keepdim=True)) / (z.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return z.softmax(2).mean(1).unflatten(1, feature.shape[2:])


def compared_recorders(
    loss_forward_mappings: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, str]:
    """Return the recorders that a distillation compares: the student's -> the teacher's.

    For the mappings see :class:`~rtm_kd.models.distillers.ConfigurableDistiller`.
    """
    pairs = {}
    for mapping in loss_forward_mappings.values():
        recorder = {location['from_student']: location['recorder'] for location in mapping.values()}
        if len(recorder) == 2:
            pairs.setdefault(recorder[True], recorder[False])
    return pairs


def attention_maps(records: Records) -> dict[str, torch.Tensor]:
    """Return the attention at each recorder: (N, h, w), on the CPU.

    The first output of its module counts; if that is not a feature map, the recorder is left out.
    """
    return {
        recorder: spatial_attention(outputs[0]).cpu()
        for recorder, outputs in records.items()
        if outputs and torch.is_tensor(outputs[0]) and outputs[0].dim() == 4
    }


def agreement(first: torch.Tensor, second: torch.Tensor) -> Optional[float]:
    """Return the correlation of two models' attention, (N, H, W), over the positions.

    It is the mean over the images, 1 for the same map; None if the shapes differ or a map is
    constant.
    """
    if first.shape != second.shape:
        return None
    a, b = (maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True) for maps in (first, second))
    correlation = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return float(correlation.mean()) if correlation.isfinite().all() else None


def without_padding(
    array: np.ndarray, input_shape: tuple[int, int], data_sample: BaseDataElement
) -> np.ndarray:
    """Return the part of a map or image that is not a detector's padding, in pixels of the input.

    Args:
        array (np.ndarray): (h, w) or (h, w, C); it covers the whole input.
        input_shape (tuple[int, int]): Height and width of the input, in pixels.
        data_sample (BaseDataElement): With ``ori_shape``, and ``scale_factor`` and ``pad_param``
            if the image was resized and padded above or on the left.
    """
    height, width = input_shape
    array = cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    pad_param = data_sample.get('pad_param')
    top, left = (0, 0) if pad_param is None else (round(pad_param[0]), round(pad_param[2]))
    scale = data_sample.get('scale_factor', (1.0, 1.0))
    rows, columns = (
        max(1, round(side * factor)) for side, factor in zip(data_sample.ori_shape, scale[::-1])
    )
    return array[top : top + rows, left : left + columns]


def draw_attention(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Draw an attention map over a grey image: darker below an even spread, glowing above it.

    Args:
        image (np.ndarray): (H, W, 3), RGB in uint8, as is the drawing.
        attention (np.ndarray): Multiples of an even spread, (h, w); 1/4 and 4 are the ends of the
            scale.
    """
    height, width = image.shape[:2]
    attention = cv2.resize(attention, (width, height), interpolation=cv2.INTER_LINEAR)
    # From -1 over 0, an even spread, to 1.
    excess = np.log(np.clip(attention, 1 / _RANGE, _RANGE)) / np.log(_RANGE)
    level = np.round((excess.clip(min=0) + 1) / 2 * 255).astype(np.uint8)
    glow = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * _GREY
    share = excess.clip(min=0)[..., None] ** 0.7 * _OPACITY
    shaded = grey * (1 + excess.clip(max=0)[..., None] * _SHADE)
    return np.round(shaded * (1 - share) + glow * share).astype(np.uint8)
