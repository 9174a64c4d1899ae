"""A detector that can be traced, from pixels to the boxes and scores of every prior."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any, Optional

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from rtm_kd.models.folding import fold_batch_norms
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.internals import normalises, swaps_channels

# Supported keys of `test_cfg.nms`; `split_thr` changes only the speed of mmcv's NMS.
_NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


@dataclass(frozen=True)
class Selection:
    """Which boxes a detector returns: the ``test_cfg`` of MMYOLO's heads."""

    score_thr: float  # scores must be above it
    nms_pre: int  # maximum number of boxes per image that NMS gets
    multi_label: bool  # whether a prior can have several classes
    iou_threshold: float  # a box that overlaps a better one by more is dropped
    class_agnostic: bool  # whether boxes of other classes count too
    min_bbox_size: float  # boxes must be wider and higher, in pixels; below 0 for any size
    max_per_img: Optional[int]  # maximum number of boxes kept per image, None for all

    @classmethod
    def from_test_cfg(cls, test_cfg: dict, num_classes: int) -> 'Selection':
        """Read the ``test_cfg`` of a head.

        Raises:
            ValueError: If it asks for any but plain NMS.
        """
        nms = dict(test_cfg['nms'])
        if nms.get('type', 'nms') != 'nms' or not nms.keys() <= _NMS_KEYS:
            raise UsageError(
                f'model.test_cfg.nms is {nms}, and an exported file can hold only '
                "dict(type='nms', iou_threshold=...); set that, or leave --with-nms out"
            )
        most = test_cfg['max_per_img']
        unlimited = test_cfg.get('yolox_style') or most is None or most < 0
        return cls(
            score_thr=float(test_cfg.get('score_thr', -1)),
            nms_pre=int(test_cfg.get('nms_pre', 100000)),
            multi_label=bool(test_cfg.get('multi_label')) and num_classes > 1,
            iou_threshold=float(nms['iou_threshold']),
            class_agnostic=bool(nms.get('class_agnostic')),
            min_bbox_size=float(test_cfg.get('min_bbox_size', -1)),
            max_per_img=None if unlimited else int(most),
        )


class DetectionNetwork(nn.Module):
    """A detector up to NMS, free of anything that a tracer can't follow.

    Colours and normalisation are those of the model's ``data_preprocessor``, decoding and scores
    those of MMYOLO's ``YOLOv5Head.predict_by_feat``, which RTMDet's head and most others inherit.

    Args:
        model (BaseModel): A detector with its weights. It is copied.
        half (bool): Backbone, neck and head in float16. Boxes are still decoded in float32, since
            float16 has no half pixels above 1024.

    Raises:
        ValueError: If the detector has another head.
    """

    def __init__(self, model: BaseModel, half: bool = False) -> None:
        super().__init__()
        _check_head(model)
        model = copy.deepcopy(model).eval()
        fold_batch_norms(model, kept=set())
        self.dtype = torch.float16 if half else torch.float32
        preprocessor = model.data_preprocessor
        self.takes_rgb = swaps_channels(preprocessor)
        self.normalises = normalises(preprocessor)
        if self.normalises:
            self.register_buffer('mean', preprocessor.mean.float())
            self.register_buffer('std', preprocessor.std.float())
        self.score_thr = model.bbox_head.test_cfg.get('score_thr', -1)
        self.yolox_style = model.bbox_head.test_cfg.get('yolox_style', False)
        self.num_classes = model.bbox_head.num_classes
        self.bbox_coder = model.bbox_head.bbox_coder
        self.strides = [float(stride) for stride in model.bbox_head.featmap_strides]
        # A head may leave the coarsest level of its neck out.
        self.stride = max(32, *map(int, self.strides))
        for level, base in enumerate(_base_priors(model.bbox_head.prior_generator)):
            self.register_buffer(f'base_priors_{level}', base.float())
        model.to(self.dtype)
        self.register_buffer('like', torch.zeros(1, dtype=self.dtype))
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else None
        self.bbox_head = model.bbox_head
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute boxes and scores.

        Args:
            images (Tensor): uint8 of shape (N, 3, H, W), in RGB; H and W multiples of ``stride``.

        Returns:
            tuple[Tensor, Tensor]: For each of P priors the box as x1, y1, x2, y2 in pixels of
            the input, shape (N, P, 4), and the score of each class, shape (N, P, C).
        """
        images = images.float() if self.takes_rgb else images.float().flip(1)
        if self.normalises:
            images = (images - self.mean) / self.std
        # By a tensor, so that `.float()` of a TorchScript file reaches it.
        features = self.backbone(images.type_as(self.like))
        if self.neck is not None:
            features = self.neck(features)
        cls_scores, bbox_preds, *objectnesses = (
            [level.float() for level in levels] for levels in self.bbox_head(features)
        )
        scores = _flat(cls_scores, self.num_classes).sigmoid()
        if objectnesses:
            objectness = _flat(objectnesses[0], 1).sigmoid()
            scores = scores * objectness
            if self.score_thr > 0 and not self.yolox_style:
                scores = scores * (objectness > self.score_thr)
        priors, strides = self._priors(bbox_preds)
        return self.bbox_coder.decode(priors[None], _flat(bbox_preds, 4), strides), scores

    def _priors(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the priors and their strides.

        MMDetection's generator takes sizes as numbers, which a tracer turns into constants.
        """
        priors, strides = [], []
        for index, level in enumerate(levels):
            base = getattr(self, f'base_priors_{index}')
            ones = torch.ones_like(level[0, 0])
            grid = torch.stack([ones.cumsum(1) - 1, ones.cumsum(0) - 1], dim=-1)
            shifts = grid.reshape(-1, 1, 2) * self.strides[index]
            if base.shape[1] == 4:
                shifts = torch.cat([shifts, shifts], dim=-1)
            priors.append((shifts + base).reshape(-1, base.shape[1]))
            strides.append(torch.full_like(priors[-1][:, 0], self.strides[index]))
        return torch.cat(priors), torch.cat(strides)


def _flat(levels: list[Tensor], channels: int) -> Tensor:
    """Join maps of shape (N, priors * channels, H, W) into (N, P, channels)."""
    return torch.cat(
        [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels) for level in levels],
        dim=1,
    )


def _base_priors(generator: Any) -> list[Tensor]:
    """Return the priors of each level at its first place: (A, 2) as x, y or (A, 4) as a box."""
    if hasattr(generator, 'base_anchors'):
        return list(generator.base_anchors)
    return [
        torch.tensor([[width, height]]) * generator.offset for width, height in generator.strides
    ]


def _check_head(model: BaseModel) -> None:
    head = getattr(model, 'bbox_head', None)
    # By name, without importing MMYOLO.
    predicts = getattr(getattr(head, 'predict_by_feat', None), '__qualname__', None)
    if predicts != 'YOLOv5Head.predict_by_feat':
        what = f'the head {type(head).__name__}' if head is not None else 'no bbox_head'
        raise UsageError(
            f'a {type(model).__name__} with {what} can be exported as pth only: ONNX and '
            'TorchScript are for the heads of MMYOLO that find boxes and nothing else, those of '
            'RTMDet, YOLOv5, YOLOv6, YOLOv7, YOLOv8, YOLOX and PP-YOLOE'
        )


def traced(network: DetectionNetwork) -> Any:
    """Return a network as a TorchScript program, for any number and size of images.

    Raises:
        ValueError: If this torch can't compute it on a CPU in the network's precision, or an
            ordinary image exceeds the range of float16.
    """
    example = example_images(network)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # About assertions that a trace leaves out, and about torch's newer formats.
            warnings.simplefilter('ignore')
            program = torch.jit.trace(network, example, check_trace=False)
            outputs = program(example)
    except RuntimeError as error:
        if network.dtype == torch.float32 or 'Half' not in str(error):
            raise
        raise UsageError(
            f'--half: torch {torch.__version__} does not compute in float16 on a CPU, which '
            'the export needs to; leave --half out, or export with a newer torch'
        ) from error
    if network.dtype == torch.float16 and not all(output.isfinite().all() for output in outputs):
        raise UsageError(
            "--half: the network's values exceed the range of float16; leave --half out"
        )
    return program


def example_images(network: DetectionNetwork) -> Tensor:
    """Return an image of noise that a network takes, uint8 of shape (1, 3, 64, 96) or larger.

    Small because float16 on a CPU is slow, and not square so that height and width differ.
    """
    generator = torch.Generator().manual_seed(0)
    size = (1, 3, 2 * network.stride, 3 * network.stride)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8)
