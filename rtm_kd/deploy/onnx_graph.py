"""Export to ONNX, for onnxruntime and other runtimes."""

import inspect
import io
import warnings
from typing import Any, Optional

import torch

from rtm_kd.utils.errors import UsageError

from .network import DetectionNetwork, Selection, example_images, traced

_OPSET = 17
# Between the scores of boxes, which are not negative, and the -1 of everything else.
_NO_BOX = -0.5

# From the network's boxes (N, P, 4) and scores (N, P, C) to the detections of each image, in the
# steps and the order of MMYOLO's predict_by_feat and mmcv's batched_nms. K candidates are left
# after `nms_pre`, M after NMS of the image with most. `{...}` depend on the test_cfg.
_SELECTION = """
<ir_version: 8, opset_import: ["" : {opset}]>
selection (
    uint8[N, 3, H, W] images, float[N, 2] scale_factor, float[N, 4] pad_param,
    float[N, P, 4] all_boxes, float[N, P, C] all_scores
) => (int64[N] num_dets, float[N, M, 4] boxes, float[N, M] scores, int64[N, M] labels)
<
    int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, int64[1] no_label = {{-1}},
    float zero = {{0.0}}, float one = {{1.0}}, float none = {{-1.0}}, float no_box = {{{no_box}}},
    int64[4] left_top = {{2, 0, 2, 0}}, int64[4] right_bottom = {{3, 1, 3, 1}},
    int64[4] width_height = {{3, 2, 3, 2}}, int64[2] image_and_candidate = {{0, 2}},
    int64[1] nms_pre = {{{nms_pre}}}, int64[1] max_per_img = {{{max_per_img}}},
    float score_thr = {{{score_thr}}}, float iou_threshold = {{{iou_threshold}}},
    float min_size = {{{min_bbox_size}}}
>
{{
    # Boxes in pixels of the photograph, as they are when mmcv compares them: in pixels of the
    # input they would be rounded differently, and a few other boxes would be kept.
    origin_flat = Gather <axis = 1> (pad_param, left_top)
    origin = Unsqueeze (origin_flat, i1)
    scale_flat = Concat <axis = 1> (scale_factor, scale_factor)
    scale = Unsqueeze (scale_flat, i1)
    moved = Sub (all_boxes, origin)
    photo_boxes = Div (moved, scale)

    # The best candidates, as (prior, class) or, with one class for each prior, as priors.
    {flatten}
    number = Shape <start = 1, end = 2> (flat)
    k = Min (number, nms_pre)
    k_scores, place = TopK <axis = 1, largest = 1, sorted = 1> (flat, k)
    {unflatten}
    prior_index = Unsqueeze (prior, i2)
    k_boxes = GatherND <batch_dims = 1> (photo_boxes, prior_index)

    above = Greater (k_scores, score_thr)
    starts, ends = Split <axis = 2> (k_boxes)
    sides = Sub (ends, starts)
    shorter = ReduceMin <axes = [2], keepdims = 0> (sides)
    large = Greater (shorter, min_size)
    valid = And (above, large)
    valid_scores = Where (valid, k_scores, none)

    # mmcv moves the boxes of each class apart by the largest coordinate of all candidates.
    lowest = ReduceMin <keepdims = 0> (k_boxes)
    valid_index = Unsqueeze (valid, i2)
    counted = Where (valid_index, k_boxes, lowest)
    largest = ReduceMax <axes = [1, 2], keepdims = 1> (counted)
    distance = Add (largest, one)
    label_number = Cast <to = 1> (label)
    label_column = Unsqueeze (label_number, i2)
    offset = Mul (label_column, distance)
    apart = {apart}
    # A box whose right is left of its left overlaps nothing in torchvision. NonMaxSuppression
    # would flip it: it gets no width instead.
    first_corner, second_corner = Split <axis = 2> (apart)
    far_corner = Max (first_corner, second_corner)
    nms_boxes = Concat <axis = 2> (first_corner, far_corner)

    most = Min (k, max_per_img)
    nms_scores = Unsqueeze (valid_scores, i1)
    selected = NonMaxSuppression (nms_boxes, nms_scores, most, iou_threshold, no_box)

    # Back to rows of images; the candidates are in order of their scores already.
    kept_at = Gather <axis = 1> (selected, image_and_candidate)
    kept_k_scores = GatherND (k_scores, kept_at)
    k_shape = Shape (k_scores)
    nothing = Expand (none, k_shape)
    kept_scores = ScatterND (nothing, kept_at, kept_k_scores)
    kept = Greater (kept_scores, no_box)
    kept_as_number = Cast <to = 7> (kept)
    num_dets = ReduceSum <keepdims = 0> (kept_as_number, i1)
    m = ReduceMax <keepdims = 1> (num_dets)
    m_scores, m_place = TopK <axis = 1, largest = 1, sorted = 1> (kept_scores, m)
    m_place_index = Unsqueeze (m_place, i2)
    m_boxes = GatherND <batch_dims = 1> (k_boxes, m_place_index)
    m_labels = GatherElements <axis = 1> (label, m_place)

    # Clipped to the photograph, whose size follows from the input's.
    shape_of_images = Shape (images)
    input_w_h = Gather <axis = 0> (shape_of_images, width_height)
    input_size = Cast <to = 1> (input_w_h)
    without_left_top = Sub (input_size, origin_flat)
    padding_after = Gather <axis = 1> (pad_param, right_bottom)
    content_size = Sub (without_left_top, padding_after)
    photo_size = Div (content_size, scale_flat)
    photo_pixels = Round (photo_size)
    limit = Unsqueeze (photo_pixels, i1)
    m_boxes_positive = Max (m_boxes, zero)
    m_boxes_cut = Min (m_boxes_positive, limit)

    is_box = Greater (m_scores, no_box)
    is_box_index = Unsqueeze (is_box, i2)
    boxes = Where (is_box_index, m_boxes_cut, zero)
    scores = Where (is_box, m_scores, zero)
    labels = Where (is_box, m_labels, no_label)
}}
"""
_MULTI_LABEL = dict(
    flatten="""
    rows = Constant <value_ints = [0, -1]> ()
    flat = Reshape (all_scores, rows)""",
    unflatten="""
    classes = Constant <value_ints = [{num_classes}]> ()
    prior = Div (place, classes)
    label = Mod (place, classes)""",
)
_SINGLE_LABEL = dict(
    flatten="""
    flat = ReduceMax <axes = [2], keepdims = 0> (all_scores)
    best_label = ArgMax <axis = 2, keepdims = 0> (all_scores)""",
    unflatten="""
    prior = Identity (place)
    label = GatherElements <axis = 1> (best_label, place)""",
)


def to_onnx(
    network: DetectionNetwork,
    input_size: tuple[int, int],
    selection: Optional[Selection],
    dynamic: bool,
    metadata: dict[str, str],
) -> bytes:
    """Return a detector as an ONNX file.

    Inputs and outputs are named, and are those of :class:`rtm_kd.deploy.torchscript.Detector`
    with a selection, and of :class:`rtm_kd.deploy.network.DetectionNetwork` without one.

    Args:
        network (DetectionNetwork): The detector.
        input_size (tuple[int, int]): Width and height of its images.
        selection (Selection, optional): Which boxes to return, None for all, without NMS.
        dynamic (bool): Whether it also takes other numbers and sizes of images.
        metadata (dict[str, str]): Name -> text, the file's ``metadata_props``.

    Raises:
        ValueError: If the package onnx is missing, or this torch can't run the network.
    """
    onnx = import_onnx()
    candidates = ['boxes', 'scores'] if selection is None else ['all_boxes', 'all_scores']
    axes = dict(images={0: 'batch', 2: 'height', 3: 'width'})
    axes.update({name: {0: 'batch', 1: 'priors'} for name in candidates})
    options = {}
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        # The other exporter writes this network alike, but needs another package.
        options['dynamo'] = False
    program = traced(network)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            program,
            (example_images(network),),
            file,
            input_names=['images'],
            output_names=candidates,
            dynamic_axes=axes,
            opset_version=_OPSET,
            **options,
        )
    model = onnx.load_from_string(file.getvalue())
    if selection is not None:
        append_selection(onnx, model, selection, network.num_classes)
    if not dynamic:
        sizes = dict(batch=1, height=input_size[1], width=input_size[0])
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def import_onnx() -> Any:
    """Return the package onnx, or raise UsageError if it is missing."""
    try:
        import onnx
        import onnx.checker
        import onnx.parser
    except ImportError as error:
        raise UsageError(
            'the export to ONNX needs the package onnx: `pip install -c constraints.txt '
            "-e '.[export]'`, or `pip install onnx`"
        ) from error
    return onnx


def append_selection(onnx: Any, model: Any, selection: Selection, num_classes: int) -> None:
    """Extend a graph from all boxes and scores to the detections."""
    parts = _MULTI_LABEL if selection.multi_label else _SINGLE_LABEL
    text = _SELECTION.format(
        opset=_OPSET,
        no_box=_NO_BOX,
        nms_pre=selection.nms_pre,
        score_thr=float(selection.score_thr),
        iou_threshold=float(selection.iou_threshold),
        min_bbox_size=selection.min_bbox_size if selection.min_bbox_size >= 0 else -3e38,
        apart='Identity (k_boxes)' if selection.class_agnostic else 'Add (k_boxes, offset)',
        max_per_img=2**62 if selection.max_per_img is None else selection.max_per_img,
        **{name: part.format(num_classes=num_classes) for name, part in parts.items()},
    )
    graph = onnx.parser.parse_model(text).graph
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    model.graph.input.extend(graph.input[1:3])
    del model.graph.output[:]
    model.graph.output.extend(graph.output)
    for value in (*model.graph.input, *model.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        first.dim_param = 'batch'
        if value.name in ('boxes', 'scores', 'labels'):
            others[0].dim_param = 'detections'
