"""Export to TorchScript, for torch without any other package."""

import io
import warnings
import zipfile
from typing import Any, Optional

import torch
from torch import Tensor, nn

from .network import DetectionNetwork, Selection, traced


def to_torchscript(
    network: DetectionNetwork,
    input_size: tuple[int, int],
    selection: Optional[Selection],
    dynamic: bool,
    metadata: dict[str, str],
) -> bytes:
    """Return a detector as a TorchScript file.

    Takes what :func:`rtm_kd.deploy.to_onnx` takes; each entry of ``metadata`` is an extra file of
    the archive.

    Raises:
        ValueError: If this torch can't run the network, for example in float16.
    """
    height, width = (0, 0) if dynamic else input_size[::-1]
    detector = _Candidates(traced(network), height, width, network.stride)
    if selection is not None:
        detector = Detector(detector, selection)
    with warnings.catch_warnings():
        # Newer versions of torch advise against its formats.
        warnings.simplefilter('ignore')
        program = torch.jit.script(detector.eval())
        file = io.BytesIO()
        torch.jit.save(program, file, _extra_files=metadata)
    # Without debug information, which has this machine's paths and lines of source.
    stripped = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(stripped, 'w') as target:
        for entry in source.infolist():
            if not entry.filename.endswith('.debug_pkl'):
                target.writestr(entry, source.read(entry))
    return stripped.getvalue()


class _Candidates(nn.Module):
    """A traced network that refuses images of unsuitable shape."""

    def __init__(self, network: Any, height: int, width: int, stride: int) -> None:
        super().__init__()
        self.network, self.height, self.width, self.stride = network, height, width, stride

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dim() != 4 or images.dtype != torch.uint8:
            raise ValueError('expected images as uint8 of shape (N, 3, height, width), in RGB')
        size = images.shape[2:]
        if self.height > 0 and (size[0] != self.height or size[1] != self.width):
            raise ValueError(
                f'expected images of height {self.height} and width {self.width}, got '
                f'{size[0]} and {size[1]}; export with --dynamic for other sizes'
            )
        if size[0] % self.stride != 0 or size[1] % self.stride != 0:
            raise ValueError(
                f'expected height and width to be multiples of {self.stride}, got {size[0]} and '
                f'{size[1]}'
            )
        return self.network(images)


class Detector(nn.Module):
    """A network with MMYOLO's ``predict_by_feat`` and mmcv's ``batched_nms`` after it.

    The steps have the same order, so that results are rounded alike: NMS compares boxes in pixels
    of the photograph, moved apart class by class.
    """

    def __init__(self, candidates: _Candidates, selection: Selection) -> None:
        super().__init__()
        self.candidates = candidates
        # Each field of a Selection, in its type, is an attribute of the scripted program.
        for name, value in vars(selection).items():
            setattr(self, name, value)

    def forward(
        self, images: Tensor, scale_factor: Tensor, pad_param: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            images (Tensor): uint8 of shape (N, 3, H, W), in RGB.
            scale_factor (Tensor): Scale of the photographs' width and height, (N, 2); ones for
                boxes in pixels of the input.
            pad_param (Tensor): Rows and columns added at the top, bottom, left and right, (N, 4).

        Returns:
            tuple[Tensor, Tensor, Tensor, Tensor]: The number of boxes of each image, (N,);
            boxes as x1, y1, x2, y2 in pixels of the photograph, (N, M, 4); scores, (N, M), best
            first; and labels, (N, M). Images with fewer than M boxes are padded with zeros, and
            with -1 for labels.
        """
        boxes, scores = self.candidates(images)
        if scale_factor.shape != [boxes.shape[0], 2] or pad_param.shape != [boxes.shape[0], 4]:
            raise ValueError(
                f'expected scale_factor and pad_param of shape ({boxes.shape[0]}, 2) and '
                f'({boxes.shape[0]}, 4), got {scale_factor.shape} and {pad_param.shape}'
            )
        scale_factor, pad_param = scale_factor.to(boxes), pad_param.to(boxes)
        size = images.shape[2:]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for i in range(boxes.shape[0]):
            found.append(self.select(boxes[i], scores[i], scale_factor[i], pad_param[i], size))
        num_dets = torch.tensor([kept[1].shape[0] for kept in found], device=boxes.device)
        shape = [len(found), int(num_dets.max())]
        all_boxes, all_scores = boxes.new_zeros(shape + [4]), boxes.new_zeros(shape)
        all_labels = torch.full(shape, -1, dtype=torch.int64, device=boxes.device)
        for i, kept in enumerate(found):
            number = kept[1].shape[0]
            all_boxes[i, :number] = kept[0]
            all_scores[i, :number] = kept[1]
            all_labels[i, :number] = kept[2]
        return num_dets, all_boxes, all_scores, all_labels

    def select(
        self,
        boxes: Tensor,
        scores: Tensor,
        scale_factor: Tensor,
        pad_param: Tensor,
        size: list[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        top, bottom, left, right = pad_param.unbind(0)
        scale = torch.cat([scale_factor, scale_factor])
        boxes = (boxes - torch.stack([left, top, left, top])) / scale
        if self.multi_label:
            prior, label = (scores > self.score_thr).nonzero().unbind(1)
            scores = scores[prior, label]
        else:
            scores, label = scores.max(1)
            prior = (scores > self.score_thr).nonzero()[:, 0]
            scores, label = scores[prior], label[prior]
        scores, order = scores.sort(stable=True, descending=True)
        scores, order = scores[: self.nms_pre], order[: self.nms_pre]
        boxes, label = boxes[prior[order]], label[order]
        if self.min_bbox_size >= 0:
            sides = boxes[:, 2:] - boxes[:, :2]
            large = (sides > self.min_bbox_size).all(1)
            boxes, scores, label = boxes[large], scores[large], label[large]
        if boxes.shape[0] > 0:
            apart = boxes
            if not self.class_agnostic:
                apart = boxes + (label.to(boxes) * (boxes.max() + 1))[:, None]
            kept = self.nms(apart)
            boxes, scores, label = boxes[kept], scores[kept], label[kept]
        height = ((size[0] - top - bottom) / scale[1]).round()
        width = ((size[1] - left - right) / scale[0]).round()
        limit = torch.stack([width, height, width, height])
        return torch.minimum(boxes.clamp(min=0), limit), scores, label

    def nms(self, boxes: Tensor) -> Tensor:
        """Return the indices of the boxes to keep, given boxes sorted by score.

        In blocks: box by box takes up to fifty times as long.
        """
        index = torch.arange(boxes.shape[0], device=boxes.device)
        limit = boxes.shape[0] if self.max_per_img is None else self.max_per_img
        kept = index[:0]
        for block in index.split(512):
            if kept.shape[0] >= limit:
                break
            block = block[self.overlaps(boxes[kept], boxes[block]).any(0).logical_not()]
            by_better = self.overlaps(boxes[block], boxes[block]).triu(1)
            # A box stays if no better box that stays overlaps it. After n rounds the first n boxes
            # are settled, and once a round changes nothing all are.
            stays = torch.ones_like(block, dtype=torch.bool)
            settled = False
            while not settled:
                still = by_better.logical_and(stays[:, None]).any(0).logical_not()
                settled = bool((still == stays).all())
                stays = still
            kept = torch.cat([kept, block[stays]])
        return kept[:limit]

    def overlaps(self, ones: Tensor, others: Tensor) -> Tensor:
        """Return whether each of n boxes overlaps each of m others by too much, (n, m)."""
        areas = (ones[:, 2] - ones[:, 0]) * (ones[:, 3] - ones[:, 1])
        other_areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
        right_bottom = torch.minimum(ones[:, None, 2:], others[None, :, 2:])
        left_top = torch.maximum(ones[:, None, :2], others[None, :, :2])
        sides = (right_bottom - left_top).clamp(min=0)
        shared = sides[..., 0] * sides[..., 1]
        iou = shared / (areas[:, None] + other_areas[None] - shared)
        # In float64, as torchvision compares it.
        return iou.double() > self.iou_threshold
