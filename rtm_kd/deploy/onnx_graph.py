"""ONNX: a file that onnxruntime and its likes run."""

import inspect
import io
import warnings
from typing import Any, Optional

import torch

from rtm_kd.utils.errors import UsageError

from .network import DetectionNetwork, Selection
from .tracing import example_images, traced

_OPSET = 17
# Between the scores of boxes, from 0 on, and the -1 of what is none.
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
{{
    # Boxes in pixels of the photograph, as they are when mmcv compares them: in those of the
    # input they would round differently, and a few others would be kept.
    i0 = Constant <value_ints = [0]> ()
    i1 = Constant <value_ints = [1]> ()
    i2 = Constant <value_ints = [2]> ()
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    none = Constant <value_float = -1.0> ()
    no_box = Constant <value_float = {no_box}> ()
    halves = Constant <value_ints = [2, 2]> ()
    left_top_twice = Constant <value_ints = [2, 0, 2, 0]> ()
    origin_flat = Gather <axis = 1> (pad_param, left_top_twice)
    origin = Unsqueeze (origin_flat, i1)
    scale_flat = Concat <axis = 1> (scale_factor, scale_factor)
    scale = Unsqueeze (scale_flat, i1)
    moved = Sub (all_boxes, origin)
    photo_boxes = Div (moved, scale)

    # The best candidates, as (prior, class) or, with one class for each prior, as priors.
    {flatten}
    shape_of_flat = Shape (flat)
    number = Gather <axis = 0> (shape_of_flat, i1)
    nms_pre = Constant <value_ints = [{nms_pre}]> ()
    k = Min (number, nms_pre)
    k_scores, place = TopK <axis = 1, largest = 1, sorted = 1> (flat, k)
    {unflatten}
    prior_index = Unsqueeze (prior, i2)
    k_boxes = GatherND <batch_dims = 1> (photo_boxes, prior_index)

    score_thr = Constant <value_float = {score_thr}> ()
    above = Greater (k_scores, score_thr)
    {size_filter}
    valid_scores = Where (valid, k_scores, none)

    # mmcv moves the boxes of each class by the largest coordinate of all; what is no candidate
    # there must not count.
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
    # would turn it over: it gets no width instead.
    first_corner, second_corner = Split <axis = 2> (apart, halves)
    far_corner = Max (first_corner, second_corner)
    nms_boxes = Concat <axis = 2> (first_corner, far_corner)

    {most}
    nms_scores = Unsqueeze (valid_scores, i1)
    iou_threshold = Constant <value_float = {iou_threshold}> ()
    selected = NonMaxSuppression (nms_boxes, nms_scores, most, iou_threshold, no_box)

    # Back to rows of images; the candidates are in order of their scores already.
    image_and_candidate = Constant <value_ints = [0, 2]> ()
    kept_at = Gather <axis = 1> (selected, image_and_candidate)
    shape_of_kept = Shape (kept_at)
    kept_number = Gather <axis = 0> (shape_of_kept, i0)
    kept_ones = Expand (one, kept_number)
    nothing = Mul (k_scores, zero)
    kept_flags = ScatterND (nothing, kept_at, kept_ones)
    kept = Greater (kept_flags, zero)
    kept_as_number = Cast <to = 7> (kept)
    num_dets = ReduceSum <keepdims = 0> (kept_as_number, i1)
    m = ReduceMax <keepdims = 1> (num_dets)
    kept_scores = Where (kept, k_scores, none)
    m_scores, m_place = TopK <axis = 1, largest = 1, sorted = 1> (kept_scores, m)
    m_place_index = Unsqueeze (m_place, i2)
    m_boxes = GatherND <batch_dims = 1> (k_boxes, m_place_index)
    m_labels = GatherElements <axis = 1> (label, m_place)

    # Cut at the edges of the photograph, whose size follows from the input's.
    heights_widths = Constant <value_ints = [3, 2]> ()
    shape_of_images = Shape (images)
    input_w_h = Gather <axis = 0> (shape_of_images, heights_widths)
    input_size = Cast <to = 1> (input_w_h)
    right_bottom_at = Constant <value_ints = [3, 1]> ()
    left_top_at = Constant <value_ints = [2, 0]> ()
    right_bottom = Gather <axis = 1> (pad_param, right_bottom_at)
    left_top = Gather <axis = 1> (pad_param, left_top_at)
    without_left_top = Sub (input_size, left_top)
    content_size = Sub (without_left_top, right_bottom)
    photo_size = Div (content_size, scale_factor)
    photo_pixels = Round (photo_size)
    limit_flat = Concat <axis = 1> (photo_pixels, photo_pixels)
    limit = Unsqueeze (limit_flat, i1)
    m_boxes_positive = Max (m_boxes, zero)
    m_boxes_cut = Min (m_boxes_positive, limit)

    is_box = Greater (m_scores, no_box)
    is_box_index = Unsqueeze (is_box, i2)
    boxes = Where (is_box_index, m_boxes_cut, zero)
    scores = Where (is_box, m_scores, zero)
    no_label = Constant <value_ints = [-1]> ()
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
_MIN_SIZE = """
    starts, ends = Split <axis = 2> (k_boxes, halves)
    sides = Sub (ends, starts)
    shorter = ReduceMin <axes = [2], keepdims = 0> (sides)
    min_size = Constant <value_float = {min_bbox_size}> ()
    large = Greater (shorter, min_size)
    valid = And (above, large)"""
_ANY_SIZE = 'valid = Identity (above)'
_MOST = """
    max_per_img = Constant <value_ints = [{max_per_img}]> ()
    most = Min (k, max_per_img)"""
_ALL = 'most = Identity (k)'


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
        selection (Selection, optional): Which boxes to return, None for all and without NMS.
        dynamic (bool): Whether it takes other numbers and sizes of images as well.
        metadata (dict[str, str]): Name -> text, the file's ``metadata_props``.

    Raises:
        ValueError: If the package onnx is missing, or this torch can't run the network.
    """
    onnx = import_onnx()
    candidates = ['boxes', 'scores'] if selection is None else ['all_boxes', 'all_scores']
    axes = dict(images={0: 'batch', 2: 'height', 3: 'width'})
    axes.update({name: {0: 'batch', 1: 'priors'} for name in candidates})
    program = traced(network)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            program,
            (example_images(),),
            file,
            input_names=['images'],
            output_names=candidates,
            dynamic_axes=axes,
            opset_version=_OPSET,
            **_TRACING_EXPORTER,
        )
    model = onnx.load_from_string(file.getvalue())
    if selection is not None:
        append_selection(onnx, model, selection, network.num_classes)
    if not dynamic:
        _fix_sizes(model, dict(batch=1, height=input_size[1], width=input_size[0]))
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def import_onnx() -> Any:
    """Return the package onnx.

    Raises:
        ValueError: If it is missing.
    """
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


# The other exporter needs a further package, and not every torch has it. Both write this network
# alike; older versions of torch don't know the argument.
_TRACING_EXPORTER = (
    dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
)


def append_selection(onnx: Any, model: Any, selection: Selection, num_classes: int) -> None:
    """Let the graph go on from all boxes and scores to the detections."""
    values = dict(
        opset=_OPSET,
        no_box=_NO_BOX,
        num_classes=num_classes,
        nms_pre=selection.nms_pre,
        score_thr=float(selection.score_thr),
        iou_threshold=float(selection.iou_threshold),
        min_bbox_size=float(selection.min_bbox_size),
        apart='Identity (k_boxes)' if selection.class_agnostic else 'Add (k_boxes, offset)',
        max_per_img=selection.max_per_img,
    )
    parts = _MULTI_LABEL if selection.multi_label else _SINGLE_LABEL
    parts = dict(
        parts,
        size_filter=_MIN_SIZE if selection.min_bbox_size >= 0 else _ANY_SIZE,
        most=_ALL if selection.max_per_img is None else _MOST,
    )
    values.update({name: text.format(**values).strip() for name, text in parts.items()})
    graph = onnx.parser.parse_model(_SELECTION.format(**values)).graph
    model.graph.node.extend(graph.node)
    model.graph.input.extend(graph.input[1:3])
    del model.graph.output[:]
    model.graph.output.extend(graph.output)
    for value in (*model.graph.input, *model.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        first.dim_param = 'batch'
        if value.name in ('boxes', 'scores', 'labels'):
            others[0].dim_param = 'detections'


def _fix_sizes(model: Any, sizes: dict[str, int]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
