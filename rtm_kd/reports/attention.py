"""Where a detector attends: the maps that distillation compares, over the photograph."""

from collections.abc import Mapping
from typing import Any, Optional

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement

from rtm_kd.models.distillers.recorder import Records

# Attention is shown as multiples of what each position would have if all had the same, from
# one part in this many to this many times as much.
_RANGE = 4.0
# Brightness of the photograph, and what of it shade takes and glow covers at the ends.
_GREY = 0.85
_SHADE = 0.85
_OPACITY = 0.85


def spatial_attention(feature: torch.Tensor) -> torch.Tensor:
    r"""Return how a feature map's attention is spread over the image.

    Each channel is brought to zero mean and unit variance over the positions, as PKD does, and
    goes through a softmax over them, which gives the distribution :math:`\phi` that
    :func:`~rtm_kd.models.losses.channel_wise_divergence` compares. The result is the mean of
    these distributions over the channels, so that maps of any number of channels can be laid
    side by side.

    Args:
        feature (Tensor): Feature maps, (N, C, H, W).

    Returns:
        Tensor: Attention, (N, H, W), in float32; over the positions it sums to one.
    """
    z = feature.float().flatten(2)
    z = (z - z.mean(2, keepdim=True)) / (z.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return z.softmax(2).mean(1).unflatten(1, feature.shape[2:])


def compared_recorders(
    loss_forward_mappings: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, str]:
    """Return which recorders the losses of a distillation compare.

    Args:
        loss_forward_mappings (dict): As
            :class:`~rtm_kd.models.distillers.ConfigurableDistiller` takes it.

    Returns:
        dict[str, str]: Recorder of the student, which stands for a level of the FPN -> recorder
        of the teacher.
    """
    pairs = {}
    for mapping in loss_forward_mappings.values():
        recorder = {location['from_student']: location['recorder'] for location in mapping.values()}
        if len(recorder) == 2:
            pairs.setdefault(recorder[True], recorder[False])
    return pairs


def attention_maps(records: Records) -> dict[str, torch.Tensor]:
    """Return the attention of what a model's levels gave.

    Args:
        records (dict[str, list]): Level -> outputs of its module, the first of which counts, as
            :func:`~rtm_kd.models.distillers.recorder.record_outputs` collects them.

    Returns:
        dict[str, Tensor]: Level -> attention, (N, h, w), on the CPU. A level whose module gives
        no feature map is left out.
    """
    return {
        level: spatial_attention(outputs[0]).cpu()
        for level, outputs in records.items()
        if outputs and torch.is_tensor(outputs[0]) and outputs[0].dim() == 4
    }


def agreement(first: torch.Tensor, second: torch.Tensor) -> Optional[float]:
    """Return how alike two models attend: the correlation over the positions.

    Args:
        first (Tensor): Attention, (N, H, W).
        second (Tensor): Another model's, of the same shape.

    Returns:
        float | None: Mean over the images, 1 for the same map and 0 for maps that have nothing
        in common; None where it does not exist, of a constant map for one.
    """
    if first.shape != second.shape:
        return None
    a, b = (maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True) for maps in (first, second))
    correlation = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return float(correlation.mean()) if correlation.isfinite().all() else None


def without_padding(
    array: np.ndarray, input_shape: tuple[int, int], data_sample: BaseDataElement
) -> np.ndarray:
    """Cut what a detector's input shows of the photograph out of a map or image of that input.

    Args:
        array (np.ndarray): (h, w) or (h, w, C), stretched over the whole input.
        input_shape (tuple[int, int]): Height and width of the input, in pixels.
        data_sample (BaseDataElement): With the ``ori_shape`` of the photograph, and if it was
            resized its ``scale_factor``, and if it was padded on other sides than below and on
            the right its ``pad_param``.

    Returns:
        np.ndarray: The part without padding, in pixels of the input.
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
    """Lay a map of attention over a photograph.

    The scale is the same for every map: the photograph in grey where the attention is that of
    an even spread, darker where it is less, glowing where it is more. Four times as much, or a
    quarter, are the ends.

    Args:
        image (np.ndarray): The photograph, (H, W, 3), RGB in uint8.
        attention (np.ndarray): Attention as multiples of an even spread, (h, w).

    Returns:
        np.ndarray: (H, W, 3), RGB in uint8.
    """
    height, width = image.shape[:2]
    attention = cv2.resize(attention, (width, height), interpolation=cv2.INTER_LINEAR)
    # From -1, nothing, over 0, an even spread, to 1.
    excess = np.log(np.clip(attention, 1 / _RANGE, _RANGE)) / np.log(_RANGE)
    level = np.round((excess.clip(min=0) + 1) / 2 * 255).astype(np.uint8)
    glow = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * _GREY
    share = excess.clip(min=0)[..., None] ** 0.7 * _OPACITY
    shaded = grey * (1 + excess.clip(max=0)[..., None] * _SHADE)
    return np.round(shaded * (1 - share) + glow * share).astype(np.uint8)
