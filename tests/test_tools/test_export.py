"""Exported files: same detections as PyTorch, and metadata."""

import hashlib
import io
import json
import re
import runpy
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import CLASSES, KD_CONFIG, ROOT, build_a_copy_alone, make_options, run_tool, tool
from mmcv.ops import batched_nms
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.models.utils import filter_scores_and_topk
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from PIL import Image, ImageDraw

from rtm_kd.apis.export import _classes, export, load_student
from rtm_kd.deploy import DetectionNetwork, Selection, onnx_graph, to_torchscript, torchscript
from rtm_kd.models.algorithms.detector import build_detector
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

LETTERBOX = """
_base_ = './padded.py'
_scale = {{_base_.img_scale}}
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='YOLOv5KeepRatioResize', scale=_scale),
            dict(
                type='LetterResize',
                scale=_scale,
                allow_scale_up=False,
                pad_val=dict(img=114),
            ),
            dict(
                type='mmdet.PackDetInputs',
                meta_keys=('ori_shape', 'img_shape', 'scale_factor', 'pad_param'),
            ),
        ]
    )
)
"""


def seeing(config, checkpoint, data_root):
    """A checkpoint whose detections differ from image to image.

    A student that has hardly learned anything gives nearly the same scores everywhere. So its norms
    get the statistics of some photographs, and its scores are scaled to a wider spread.
    """
    _, model, _ = load_student(config, checkpoint)
    photos = [Image.open(data_root / f'images/{i}.png').resize((96, 64)) for i in range(12)]
    images = torch.stack([torch.from_numpy(np.array(photo)) for photo in photos])
    images = images.permute(0, 3, 1, 2).flip(1).float()
    images = (images - model.data_preprocessor.mean) / model.data_preprocessor.std
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # cumulative average
    head = model.bbox_head.head_module
    with torch.no_grad():
        model.train()
        model(images)
        model.eval()
        for scores, conv in zip(model(images)[0], head.rtm_cls):
            conv.weight *= 2 / scores.std()
    content = torch.load(checkpoint, weights_only=False)
    for name, value in model.state_dict().items():
        content['state_dict'][f'architecture.{name}'] = value
    return content


@pytest.fixture(scope='module')
def folder(distilled, data_root, tmp_path_factory):
    """Configs of a plain student with either padding, and their checkpoints."""
    folder = tmp_path_factory.mktemp('export')
    options = make_options(data_root)
    options['img_scale'] = [96, 64]
    del options['teacher_ckpt']
    load_config(str(ROOT / 'configs/custom_dataset/rtmdet_student.py'), options).dump(
        folder / 'padded.py'
    )
    (folder / 'letterbox.py').write_text(LETTERBOX)
    config, checkpoint = str(folder / 'padded.py'), str(distilled / 'epoch_3.pth')
    torch.save(seeing(config, checkpoint, data_root), folder / 'kd.pth')
    return folder


@pytest.fixture(scope='module')
def photos(data_root, folder):
    """Photographs whose shapes differ from the model's input."""
    paths = []
    for index, (width, height) in enumerate([(150, 100), (90, 60), (96, 64), (301, 97)]):
        with Image.open(data_root / f'images/{index}.png') as image:
            photo = image.resize((width, height))
        ImageDraw.Draw(photo).rectangle((width // 3, 10, width - 9, height // 2), fill='orange')
        paths.append(str(folder / f'{index}.png'))
        photo.save(paths[-1])
    return paths


@pytest.fixture(scope='module')
def exported(folder):
    """Export each combination of options once."""
    known = {}

    def get(format, config='padded', **options):
        key = format, config, *sorted(options)
        if key not in known:
            path = str(folder / f'{config}.py')
            known[key] = export(path, str(folder / 'kd.pth'), format, **options)
        return known[key]

    return get


@pytest.fixture(scope='module')
def pytorch(folder):
    """Detections of MMDetection's inference_detector."""
    known = {}

    def get(config='padded'):
        if config not in known:
            student = export(str(folder / 'padded.py'), str(folder / 'kd.pth'), 'pth')
            known[config] = init_detector(str(folder / f'{config}.py'), str(student), device='cpu')
        return known[config]

    return get


def prepared(model, photo):
    """Inputs of an exported file, prepared by the config's pipeline."""
    pipeline = Compose(
        [
            step
            for step in model.cfg.test_dataloader.dataset.pipeline
            if step['type'] != 'LoadAnnotations'
        ]
    )
    data = pipeline(dict(img_path=photo, img_id=0))
    about = data['data_samples'].metainfo
    images = data['inputs'].flip(0)[None].numpy().copy()
    padding = about.get('pad_param')
    if padding is None:
        (height, width), (x, y) = about['ori_shape'], about['scale_factor']
        padding = 0, images.shape[2] - round(height * y), 0, images.shape[3] - round(width * x)
    return images, np.float32([about['scale_factor']]), np.float32([padding])


def run(path, *inputs):
    """Run an exported file; arrays in and out."""
    if path.suffix == '.onnx':
        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        names = [value.name for value in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs)))
    model = torch.jit.load(str(path))
    return [output.numpy() for output in model(*map(torch.from_numpy, inputs))]


def check_same(expected, outputs, image=0, score=1e-3, pixels=0.05):
    """Match boxes one to one, by class.

    A box whose score equals the threshold, 0.001, except for rounding, may lack a partner.
    """
    sure = 0.001 + 1e-5
    number, boxes, scores, labels = outputs
    number = number[image]
    assert not boxes[image, number:].any()
    assert not scores[image, number:].any()
    assert (labels[image, number:] == -1).all()
    left = list(range(number))
    for box, its_score, label in zip(
        expected.bboxes.numpy(), expected.scores.numpy(), expected.labels.numpy()
    ):
        match = next(
            (
                index
                for index in left
                if labels[image, index] == label
                and abs(scores[image, index] - its_score) < score
                and np.abs(boxes[image, index] - box).max() < pixels
            ),
            None,
        )
        if match is None:
            assert its_score < sure
        else:
            left.remove(match)
    assert all(scores[image, index] < sure for index in left)


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
@pytest.mark.parametrize('config', ['padded', 'letterbox'])
def test_finds_the_boxes_that_pytorch_finds(exported, pytorch, photos, format, config):
    path = exported(format, config, with_nms=True)
    for photo in photos:
        expected = inference_detector(pytorch(config), photo).pred_instances
        assert len(expected) > 10
        check_same(expected, run(path, *prepared(pytorch(config), photo)))


def test_detections_depend_on_colour_order_and_mean(exported, pytorch, photos):
    """Otherwise a file that ignores either would pass the other tests."""
    path = exported('onnx', with_nms=True)
    for photo in photos:
        images, *about = prepared(pytorch(), photo)
        expected = inference_detector(pytorch(), photo).pred_instances
        darker = np.clip(images.astype(int) - 110, 0, 255).astype(np.uint8)
        for other in (images[:, ::-1].copy(), darker, np.zeros_like(images)):
            with pytest.raises((AssertionError, StopIteration)):
                check_same(expected, run(path, other, *about))


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
def test_a_batch_of_any_size_is_as_its_images_alone(exported, pytorch, photos, format):
    path = exported(format, with_nms=True, dynamic=True)
    fixed = exported(format, with_nms=True)
    inputs = [prepared(pytorch(), photo) for photo in photos]
    together = run(path, *(np.concatenate(parts) for parts in zip(*inputs)))
    for index, photo in enumerate(photos):
        check_same(inference_detector(pytorch(), photo).pred_instances, together, index)
    larger = [np.pad(inputs[0][0], ((0, 0), (0, 0), (0, 32), (0, 64))), *inputs[0][1:]]
    larger[2] = larger[2] + np.float32([[0, 32, 0, 64]])
    assert run(path, *larger)[0] > 0
    with pytest.raises(Exception, match=r'[Ee]xpected'):
        run(fixed, *larger)


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
def test_without_nms_boxes_and_scores_of_all_priors_are_returned(exported, pytorch, photos, format):
    images, _, _ = prepared(pytorch(), photos[2])  # same size as the input
    boxes, scores = run(exported(format), images)
    priors = 12 * 8 + 6 * 4 + 3 * 2
    assert boxes.shape == (1, priors, 4)
    assert scores.shape == (1, priors, len(CLASSES))
    best = inference_detector(pytorch(), photos[2]).pred_instances[0]
    prior, label = np.unravel_index(scores[0].argmax(), scores[0].shape)
    assert label == best.labels
    assert np.allclose(boxes[0, prior].clip(0, [96, 64, 96, 64]), best.bboxes[0], atol=0.05)


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
def test_a_half_precision_file_is_half_as_large_and_close(exported, pytorch, photos, format):
    path, half = exported(format), exported(format, half=True)
    assert half.stat().st_size < 0.55 * path.stat().st_size
    images, _, _ = prepared(pytorch(), photos[0])
    for expected, output, off in zip(run(path, images), run(half, images), (0.5, 0.01)):
        assert output.dtype == np.float32
        assert np.abs(output - expected).max() < off


def test_the_onnx_file_passes_the_checker(exported):
    for options in (dict(with_nms=True), dict(dynamic=True), dict(half=True)):
        model = onnx.load(exported('onnx', **options))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} == {''}


def about(path):
    if path.suffix == '.onnx':
        properties = onnx.load(path).metadata_props
        return {entry.key: json.loads(entry.value) for entry in properties}
    if path.suffix == '.pt':
        files = {'metadata.json': ''}
        torch.jit.load(str(path), _extra_files=files)
        return json.loads(files['metadata.json'])
    return torch.load(path, weights_only=False)['meta']['export']


@pytest.mark.parametrize('format', ['pth', 'onnx', 'torchscript'])
def test_the_metadata_describe_the_file(exported, format):
    path = exported(format)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert re.fullmatch(rf'padded-{digest[:8]}\.(pth|onnx|pt)', path.name)
    facts = about(path)
    assert facts['classes'] == list(CLASSES)
    assert facts['input_size'] == [96, 64]
    assert facts['padding'] == 'below and on the right'
    assert facts['padding_colour'] == [114, 114, 114]
    assert np.allclose(facts['mean'], [123.675, 116.28, 103.53])  # in RGB
    assert 'mmyolo' in facts['licence']
    assert facts['precision'] == 'float32'


def test_the_metadata_have_the_given_licence_and_the_nms(folder, exported):
    facts = about(exported('onnx', 'letterbox', with_nms=True))
    assert facts['nms']['iou_threshold'] == 0.65
    assert facts['centering'] == [0.5, 0.5]
    config, checkpoint = str(folder / 'padded.py'), str(folder / 'kd.pth')
    assert about(export(config, checkpoint, 'pth', licence='mine'))['licence'] == 'mine'


def test_the_colour_of_the_padding_is_in_rgb(folder):
    # From the pipeline, in OpenCV's BGR order.
    colour = {'test_dataloader.dataset.pipeline.2.pad_val': dict(img=(10, 20, 30))}
    config, checkpoint = str(folder / 'padded.py'), str(folder / 'kd.pth')
    facts = about(export(config, checkpoint, 'pth', cfg_options=colour))
    assert facts['padding_colour'] == [30, 20, 10]


def test_holds_the_averaged_weights_of_a_distillation_and_no_path(folder, exported):
    content = torch.load(exported('pth'), weights_only=False)
    saved = torch.load(folder / 'kd.pth', weights_only=False)
    # MMEngine's EMAHook stores the averaged weights under `state_dict`.
    name = 'backbone.stem.0.conv.weight'
    assert torch.equal(content['state_dict'][name], saved['state_dict'][f'architecture.{name}'])
    assert set(content) == {'meta', 'state_dict'}
    for format in ('onnx', 'torchscript'):
        written = exported(format, with_nms=True).read_bytes()
        assert str(ROOT).encode() not in written
        assert b'site-packages' not in written


@pytest.mark.parametrize(
    ('format', 'forbidden'),
    [('onnx', 'torch mmcv mmdet mmyolo mmengine rtm_kd onnx cv2'),
     ('torchscript', 'torchvision mmcv mmdet mmyolo mmengine rtm_kd cv2')],
)  # fmt: skip
def test_the_examples_run_without_our_packages(
    exported, pytorch, photos, tmp_path, format, forbidden
):
    with Image.open(photos[0]) as photo:
        photo.resize((96, 64)).save(tmp_path / 'photo.jpg', format='PNG')
    program = (
        'import runpy, sys\n'
        f'sys.modules.update(dict.fromkeys({forbidden.split()}))\n'
        'del sys.argv[0]\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
    )
    example = ROOT / f'examples/infer_{format}.py'
    words = [example, exported(format, with_nms=True), tmp_path / 'photo.jpg']

    def printed(score):
        command = [sys.executable, '-W', 'ignore', '-c', program, *map(str, words)]
        return subprocess.check_output([*command, '--score', score], text=True).splitlines()

    assert printed('2') == ['no detection with a score of 2 or more']
    found = inference_detector(pytorch(), str(tmp_path / 'photo.jpg')).pred_instances
    lines = [line.split() for line in printed('0.001')]
    assert len(lines) == (found.scores > 0.001).sum()
    for (name, score, *box), expected in zip(lines[:1], found):
        assert name == CLASSES[int(expected.labels)]
        assert abs(float(score) - float(expected.scores)) < 1e-3
        assert np.allclose(np.float32(box), expected.bboxes[0], atol=0.1)


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
def test_the_examples_stretch_photographs_if_the_export_does(photos, format):
    letterbox = runpy.run_path(str(ROOT / f'examples/infer_{format}.py'))['letterbox']
    about = dict(input_size=[96, 64], resizing='stretched', centering=None, padding_colour=None)
    image, scales, padding = letterbox(photos[0], about)
    assert (image.shape, padding) == ((3, 64, 96), [0, 0, 0, 0])
    assert scales == [96 / 150, 64 / 100]


def test_the_benchmark_times_every_format(folder):
    config, checkpoint = str(folder / 'padded.py'), str(folder / 'kd.pth')
    printed = run_tool('benchmark.py', config, '--exported', checkpoint, '--steps', 1)
    names = 'pytorch', 'onnx', 'onnx half', 'torchscript', 'torchscript half'
    lines = [line for line in printed.splitlines() if ' ms, / pytorch: ' in line]
    assert [line.split(':')[0] for line in lines] == list(names)


def test_a_prior_of_low_objectness_has_no_score():
    """MMYOLO filters by objectness before it looks at the classes."""
    torch.manual_seed(0)
    model = build_detector('mmyolo::yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py', 'model')
    model.eval().bbox_head.test_cfg.score_thr = 0.5
    head = model.bbox_head
    for conv in head.head_module.convs_pred:
        torch.nn.init.normal_(conv.weight, std=2)
        torch.nn.init.zeros_(conv.bias)
    images = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        _, scores = DetectionNetwork(model)(images)
        outputs = model(images / 255)
    classes, _, objectness = (
        torch.cat([level.permute(0, 2, 3, 1).reshape(1, -1, size // 3) for level in levels], 1)
        for levels, size in zip(outputs, (240, 12, 3))
    )
    expected = classes.sigmoid() * objectness.sigmoid()
    counts = objectness.sigmoid()[..., 0] > 0.5
    assert 0.2 < counts.float().mean() < 0.8
    assert not scores[~counts].any()
    torch.testing.assert_close(scores[counts], expected[counts], rtol=1e-3, atol=1e-4)


def test_a_network_with_a_stride_of_64_takes_images_of_multiples_of_64():
    model = build_detector('mmyolo::yolov5/yolov5_n-p6-v62_syncbn_fast_8xb16-300e_coco.py', 'model')
    written = to_torchscript(DetectionNetwork(model), (128, 128), None, True, {})
    program = torch.jit.load(io.BytesIO(written))
    boxes, _ = program(torch.zeros(1, 3, 64, 128, dtype=torch.uint8))
    assert boxes.shape == (1, 3 * (8 * 16 + 4 * 8 + 2 * 4 + 1 * 2), 4)
    with pytest.raises(torch.jit.Error, match='multiples of 64, got 96'):
        program(torch.zeros(1, 3, 96, 128, dtype=torch.uint8))


def test_the_weights_that_mmdetection_gave_a_model_are_exported(plain_config, options, tmp_path):
    cfg = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    cfg.backbone.init_cfg, cfg.bbox_head.num_classes = None, 2
    with DefaultScope.overwrite_default_scope('mmdet'):
        weights = MODELS.build(cfg).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'mmdet.pth')
    del options['teacher_ckpt']
    _, model, _ = load_student(plain_config, str(tmp_path / 'mmdet.pth'), options)
    own = model.state_dict()
    assert torch.equal(
        own['bbox_head.head_module.rtm_cls.0.weight'], weights['bbox_head.rtm_cls.0.weight']
    )


def test_a_detector_without_a_box_head_has_the_names_of_its_checkpoint():
    """Two-stage detectors have a roi_head; they can be exported as pth."""
    content = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    assert _classes(Config(), torch.nn.Module(), content) == ['cat', 'dog']
    with pytest.raises(ValueError, match='has names for the classes'):
        _classes(Config(), torch.nn.Module(), {})


# ---- NMS on boxes that a detector rarely predicts ----


def made_up(number, classes):
    """Boxes that overlap a lot, some inverted and some outside, with distinct scores.

    torch does not define the order of equal scores.
    """
    generator = torch.Generator().manual_seed(number)
    centers = torch.rand(number, 2, generator=generator) * 60 - 10
    sizes = torch.rand(number, 2, generator=generator) * 30 - 3
    boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], dim=1)
    scores = torch.randperm(number * classes, generator=generator) / (number * classes)
    return boxes, scores.reshape(number, classes)


def by_mmdet(boxes, scores, selection, scale, padding):
    """The steps of MMYOLO's predict_by_feat with MMDetection's and mmcv's functions."""
    if selection.multi_label:
        scores, labels, kept, _ = filter_scores_and_topk(
            scores, selection.score_thr, selection.nms_pre
        )
    else:
        scores, labels = scores.max(1, keepdim=True)
        scores, _, kept, results = filter_scores_and_topk(
            scores, selection.score_thr, selection.nms_pre, dict(labels=labels[:, 0])
        )
        labels = results['labels']
    boxes = (boxes[kept] - boxes.new_tensor(padding)[[2, 0, 2, 0]]) / boxes.new_tensor(scale * 2)
    large = ((boxes[:, 2:] - boxes[:, :2]) > selection.min_bbox_size).all(1)
    if selection.min_bbox_size >= 0:
        boxes, scores, labels = boxes[large], scores[large], labels[large]
    nms = dict(
        type='nms',
        iou_threshold=selection.iou_threshold,
        class_agnostic=selection.class_agnostic,
    )
    if len(boxes):
        kept = batched_nms(boxes, scores, labels, nms)[1][: selection.max_per_img]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    return boxes, scores, labels


def selecting_onnx(selection, classes):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    given (uint8[batch, 3, height, width] images, float[batch, p, 4] b, float[batch, p, c] s)
        => (float[batch, p, 4] all_boxes, float[batch, p, c] all_scores) {
        all_boxes = Identity (b)
        all_scores = Identity (s)
    }"""
    model = onnx.parser.parse_model(text)
    onnx_graph.append_selection(onnx, model, selection, classes)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def run(images, boxes, scores, scale, padding):
        given = dict(images=images, b=boxes, s=scores, scale_factor=scale, pad_param=padding)
        return session.run(None, {name: value.numpy() for name, value in given.items()})

    return run


class _Given(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(0), torch.empty(0)


def selecting_torchscript(selection, _):
    detector = torch.jit.script(torchscript.Detector(_Given(), selection))

    def run(images, boxes, scores, scale, padding):
        kept = detector.select(boxes[0], scores[0], scale[0], padding[0], images.shape[2:])
        return torch.tensor([len(kept[0])]), *(part[None] for part in kept)

    return run


BASE = dict(
    score_thr=0.1,
    nms_pre=1000,
    multi_label=True,
    iou_threshold=0.5,
    class_agnostic=False,
    min_bbox_size=-1,
    max_per_img=100,
)


@pytest.mark.parametrize('selecting', [selecting_onnx, selecting_torchscript])
@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(multi_label=False),
        dict(class_agnostic=True),
        dict(nms_pre=37),
        dict(max_per_img=5),
        dict(max_per_img=None),
        dict(min_bbox_size=10),
        dict(score_thr=-1, iou_threshold=0.9),
        dict(score_thr=2.0),
    ],
    ids=str,
)
def test_selects_the_boxes_that_mmcv_selects(selecting, changes):
    selection = Selection(**{**BASE, **changes})
    scale, padding = (0.7, 0.71), (3.0, 5.0, 2.0, 1.0)
    run = selecting(selection, 4)
    for number in (1, 60, 300):
        boxes, scores = made_up(number, 4)
        images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
        results = run(
            images, boxes[None], scores[None], torch.tensor([scale]), torch.tensor([padding])
        )
        count, *found = (np.asarray(result)[0] for result in results)
        expected = by_mmdet(boxes, scores, selection, scale, padding)
        limit = [round((96 - 3) / 0.7), round((64 - 8) / 0.71)] * 2
        assert count == len(expected[0])
        assert np.array_equal(found[1][:count], expected[1].numpy())
        assert np.array_equal(found[2][:count], expected[2].numpy())
        assert np.allclose(found[0][:count], expected[0].numpy().clip(0, limit), atol=1e-5)


@pytest.mark.parametrize(
    'written, meant', [(-1, None), (None, None), (3e2, 300)], ids=['MMDetection', 'none', 'float']
)
def test_limits_of_a_config_may_be_none_or_floats(written, meant):
    test_cfg = dict(nms=dict(type='nms', iou_threshold=1), nms_pre=3e4, max_per_img=written)
    selection = Selection.from_test_cfg(test_cfg, num_classes=4)
    assert (selection.nms_pre, selection.max_per_img) == (30000, meant)
    for selecting in (selecting_onnx, selecting_torchscript):
        boxes, scores = made_up(400, 1)
        images, ones = torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.ones(1, 2)
        run = selecting(selection, 1)
        count = run(images, boxes[None], scores[None], ones, torch.zeros(1, 4))[0]
        assert count == (meant or 400)


# ---- errors ----


def refused(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match):
        export(*args, **kwargs)


def test_another_models_checkpoint_is_refused(folder, distilled, tmp_path):
    teacher = str(folder / 'padded.py')
    with open(tmp_path / 'wide.py', 'w') as file:
        file.write(
            f'_base_ = {teacher!r}\n'
            'model = dict(backbone=dict(widen_factor=0.5), neck=dict(widen_factor=0.5),\n'
            '             bbox_head=dict(head_module=dict(widen_factor=0.5)))\n'
        )
    checkpoint = str(folder / 'kd.pth')
    refused('of another size', str(tmp_path / 'wide.py'), checkpoint, 'onnx')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    refused("can't be read", str(folder / 'padded.py'), str(tmp_path / 'text.pth'), 'onnx')
    torch.save(dict(fc=torch.zeros(3)), tmp_path / 'classifier.pth')
    refused('another model', str(folder / 'padded.py'), str(tmp_path / 'classifier.pth'), 'onnx')


def test_options_that_a_format_does_not_support_are_refused(folder, tmp_path, monkeypatch):
    config, checkpoint = str(folder / 'padded.py'), str(folder / 'kd.pth')
    refused('holds weights and no computation', config, checkpoint, 'pth', with_nms=True)
    soft = {'model.test_cfg.nms': dict(type='soft_nms', iou_threshold=0.6)}
    refused('soft_nms', config, checkpoint, 'onnx', with_nms=True, cfg_options=soft)
    size = {'test_dataloader.dataset.pipeline.2.size': (100, 100)}
    refused('multiples of 32', config, checkpoint, 'onnx', cfg_options=size)
    refused('one of pth, onnx, torchscript', config, checkpoint, 'coreml')


def test_a_head_with_masks_is_refused(tmp_path):
    name = 'rtmdet_ins/kd_rtmdet-ins_tiny_rtmdet-ins_s_neck_300e_coco.py'
    _, model = build_a_copy_alone(name, tmp_path)
    with pytest.raises(ValueError, match='RTMDetInsSepBNHead can be exported as pth only'):
        DetectionNetwork(model.student)


def test_an_unwritable_folder_is_found_before_the_export(folder, tmp_path):
    (tmp_path / 'file').touch()
    for out in (tmp_path / 'file', tmp_path / 'file/below'):
        refused('--out-path', 'no config', str(folder / 'kd.pth'), 'pth', out_path=str(out))


def test_a_missing_onnx_is_reported_with_the_remedy(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    refused('pip install', str(folder / 'padded.py'), str(folder / 'kd.pth'), 'onnx')


def test_half_is_refused_if_torch_does_not_support_it(folder, monkeypatch):
    def trace(*_, **__):
        raise RuntimeError('"slow_conv2d_cpu" not implemented for \'Half\'')

    monkeypatch.setattr(torch.jit, 'trace', trace)
    config, checkpoint = str(folder / 'padded.py'), str(folder / 'kd.pth')
    refused('does not compute in float16', config, checkpoint, 'onnx', half=True)


def test_convolutions_that_levels_share_are_written_once(exported):
    files = exported('pth'), exported('pth', half=True)
    whole, half = (torch.load(path)['state_dict'] for path in files)
    shared = 'bbox_head.head_module.cls_convs.{}.0.conv.weight'
    assert half[shared.format(0)].data_ptr() == half[shared.format(2)].data_ptr()
    assert files[1].stat().st_size < 0.52 * files[0].stat().st_size
    assert all(torch.equal(value.half(), half[name].half()) for name, value in whole.items())


def test_weights_outside_the_range_of_float16_are_refused(folder, tmp_path):
    content = torch.load(folder / 'kd.pth', weights_only=False)
    content['state_dict']['architecture.backbone.stem.0.conv.weight'] *= 1e9
    torch.save(content, tmp_path / 'huge.pth')
    for format in ('pth', 'torchscript'):
        args = str(folder / 'padded.py'), str(tmp_path / 'huge.pth'), format
        refused('range of float16', *args, half=True)


def test_an_interrupted_export_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(str(folder / 'padded.py'), str(folder / 'kd.pth'), 'pth', str(tmp_path / 'out'))
    assert not list((tmp_path / 'out').iterdir())


def test_the_tool_accepts_the_config_of_the_distillation(folder, data_root, tmp_path):
    options = [f'data_root={data_root}/', f'class_names={list(CLASSES)}'.replace(' ', '')]
    printed = run_tool(
        'export.py', KD_CONFIG, folder / 'kd.pth', '--format', 'pth', '--out-path', tmp_path,
        '--cfg-options', *options,
    )  # fmt: skip
    (path,) = tmp_path.iterdir()
    assert str(path) in printed
    done = tool('export.py', KD_CONFIG, tmp_path / 'none.pth', '--format', 'pth')
    assert done.returncode == 2
    assert done.stderr.startswith('error: there is no checkpoint file')
