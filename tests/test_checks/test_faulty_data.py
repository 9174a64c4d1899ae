"""Faulty annotations and images: used, or refused by name."""

import inspect
import json
import math
import os
import textwrap
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from helpers import as_arguments, tool
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import InstanceData

from rtm_kd.apis.train import train
from rtm_kd.checks import annotations as annotations_module
from rtm_kd.checks import images as images_module
from rtm_kd.checks.annotations import check_annotations, checked_annotations, read_annotations
from rtm_kd.checks.config import check_datasets, innermost_datasets
from rtm_kd.checks.images import check_images, name_faulty_images

rng = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), (0, 0), 2)


def encoded(extension, image):
    return cv2.imencode(extension, image)[1].tobytes()


@pytest.fixture
def content(data_root):
    """Annotations of the twelve images, one box each."""
    return json.loads((data_root / 'annotations/train.json').read_text())


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(
        annotations_module, 'print_log', lambda message, *args: said.append(message)
    )
    return said


@pytest.fixture
def own_data(data_root, tmp_path):
    """Write a copy of the dataset with changed annotations and other files."""

    def write(train_content, files=(), val_content=None):
        root = tmp_path / 'data'
        (root / 'annotations').mkdir(parents=True)
        (root / 'images').mkdir()
        for path in (data_root / 'images').iterdir():
            (root / 'images' / path.name).symlink_to(path)
        for name, data in dict(files).items():
            (root / 'images' / name).unlink(missing_ok=True)
            if data is not None:
                (root / 'images' / name).write_bytes(data)
        for split, content in (('train', train_content), ('val', val_content or train_content)):
            (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
        return f'{root}/'

    return write


def at(path, value):
    """A function that sets the value at ``path`` of the annotations; ``...`` deletes it."""

    def change(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


def twice(key, **values):
    def change(content):
        content[key].append({**content[key][0], **values})

    return change


@pytest.mark.parametrize(
    'change, message',
    [
        *[(at([key], ...), f'has no list "{key}"') for key in ('images', 'annotations')],
        (at(['categories'], {'1': 'disc'}), 'has no list "categories"'),
        (at(['images'], []), 'has no images'),
        (at(['images', 2], 'a.jpg'), r'images without "id": 1 \(.the one at 2.\)'),
        (at(['images', 2, 'file_name'], ...), r'images without "file_name": 1 \(2\)'),
        (at(['images', 2, 'width'], 0), r'images whose "width" is not a number above 0: 1 \(2\)'),
        (at(['images', 2, 'height'], math.nan), r'"height" is not a number above 0: 1 \(2\)'),
        (twice('images'), r'images with an "id" that another has: 1 \(0\)'),
        (twice('annotations'), r'annotations with an "id" that another has: 1 \(1\)'),
        (twice('categories'), r'categories with an "id" that another has: 1 \(0\)'),
        (twice('categories', id=5), r"classes that are the name of several .*: 1 \('disc'\)"),
        (at(['categories', 1, 'name'], ...), r'categories without "name": 1 \(1\)'),
        (at(['annotations', 4, 'area'], ...), r'annotations without "area": 1 \(5\)'),
        (at(['annotations', 4, 'image_id'], [3]), r'"image_id" is not a number or a string'),
        *[
            (
                at(['annotations', 4, 'bbox'], box),
                r'annotations whose "bbox" is not four finite numbers: 1 \(5\)',
            )
            for box in (
                *[[], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, '4'], {'x': 1}, None],
                *[[math.nan, 1, 9, 9], [1, 1, math.inf, 9], [1, 1, 10**400, 9], [1, 1, 1e39, 9]],
            )
        ],
    ],
)
def test_an_annotation_file_is_refused_with_the_ids(content, change, message):
    change(content)
    with pytest.raises(ValueError, match=rf'^the train annotation file a\.json .*{message}'):
        check_annotations(content, 'a.json', classes=('disc', 'square'))


@pytest.mark.parametrize('content', [None, 3, 'annotations', []])
def test_json_that_is_not_a_dict_is_refused(content):
    with pytest.raises(ValueError, match=r"a\.json is not in COCO's format"):
        check_annotations(content, 'a.json')


def test_all_faults_of_a_kind_are_counted(content):
    for annotation in content['annotations'][2:]:
        annotation['bbox'] = [0, 0, math.nan, 1]
    del content['images'][0]['width']
    message = r'"width": 1 \(0\); .*four finite numbers: 10 \(3, 4, 5 and 7 more\); correct it'
    with pytest.raises(ValueError, match=message):
        check_annotations(content, 'a.json')


@pytest.mark.parametrize(
    'change, reason',
    [
        *[
            (
                at(['annotations', 4, 'bbox'], box),
                'less than a pixel wide or high, or without area',
            )
            for box in ([5, 5, 0, 9], [5, 5, 9, 0.5], [5, 5, -9, 9])
        ],
        (at(['annotations', 4, 'area'], 0), 'less than a pixel wide or high, or without area'),
        (at(['annotations', 4, 'bbox'], [64, 5, 9, 9]), 'outside its image'),
        (at(['annotations', 4, 'bbox'], [5, -9, 9, 9]), 'outside its image'),
        (at(['annotations', 4, 'category_id'], 7), 'of a category that the file does not have'),
        (at(['annotations', 4, 'image_id'], '4'), 'of an image that the file does not have'),
    ],
)
def test_boxes_that_mmdetection_leaves_out_are_counted(content, change, reason, own_data, warnings):
    change(content)
    root = own_data(content)
    with checked_annotations('train'):
        dataset = CocoDataset(
            data_root=root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=('disc', 'square')),
        )
    assert sum(len(dataset.get_data_info(i)['instances']) for i in range(12)) == 11
    assert warnings == [
        f'the train annotation file {root}annotations/train.json: 1 of 12 boxes are left out, as '
        f'MMDetection does: {reason}: 1 (5)'
    ]


@pytest.mark.parametrize('width, height', [(64, 32), (32, 64)])
def test_a_box_is_compared_with_width_and_height_of_its_image(content, warnings, width, height):
    for image in content['images']:
        image.update(width=width, height=height)
    for number, annotation in enumerate(content['annotations']):
        # Inside the image, but beyond its shorter side if that were used for both axes.
        annotation['bbox'] = [40, 5, 9, 9] if width > height else [5, 40, 9, 9]
        if number == 3:
            annotation['bbox'] = [5, height, 9, 9]
        if number == 4:
            annotation['bbox'] = [width, 5, 9, 9]
    check_annotations(content, 'a.json')
    (said,) = warnings
    assert said.endswith(
        '2 of 12 boxes are left out, as MMDetection does: outside its image: 2 (4, 5)'
    )
    warnings.clear()
    # Read as corners these are inside; read as corner and size they exceed only one side.
    for annotation in content['annotations']:
        annotation['bbox'] = [2, 20, 20, 31] if width > height else [20, 2, 31, 20]
    with pytest.raises(ValueError, match='seems to have corners for boxes'):
        check_annotations(content, 'a.json')
    # The first are inside either way, the second outside either way.
    for boxes in (([20, 2, 36, 20], [2, 20, 20, 36]), ([2, 2, 20, 40], [2, 2, 40, 20])):
        for annotation in content['annotations']:
            annotation['bbox'] = boxes[width < height]
        check_annotations(content, 'a.json')
    assert warnings == []


def test_a_warning_is_one_line_without_escape_sequences(content, own_data, warnings):
    content['annotations'][4]['image_id'] = 5000 * 'a'
    check_annotations(content, '\x1b[2J\n.json')
    small = encoded('.png', PHOTO[:32, :16])
    content['images'][3]['file_name'] = '\x1b[2J\n.png'
    dataset = images_of(own_data(content, {'\x1b[2J\n.png': small}))
    check_images(dataset, 'train')
    assert len(warnings) == 2
    for said in warnings:
        assert said.isprintable() and '\\x1b[2J\\n.' in said and len(said) <= 2000


@pytest.mark.parametrize('key, field', [('images', 'image_id'), ('categories', 'category_id')])
def test_ids_that_cannot_be_sorted_are_refused_for_evaluation(content, key, field):
    content[key][1]['id'] = 'one'
    for annotation in content['annotations']:
        if annotation[field] == 1:
            annotation[field] = 'one'
    check_annotations(content, 'a.json', 'train')
    with pytest.raises(ValueError, match=rf"{key} whose \"id\" is a string.*: 1 \('one'\)"):
        check_annotations(content, 'a.json', 'val')
    # Ids that are all strings can be sorted.
    for entry in content[key]:
        entry['id'] = str(entry['id'])
    for annotation in content['annotations']:
        annotation[field] = str(annotation[field])
    check_annotations(content, 'a.json', 'val')


def test_boxes_of_one_pixel_are_kept(content, warnings, own_data):
    for annotation in content['annotations']:
        annotation.update(bbox=[63, 63, 1, 1], area=1)
    check_annotations(content, 'a.json')
    assert warnings == []
    dataset = images_of(own_data(content))
    assert sum(len(dataset.get_data_info(i)['instances']) for i in range(12)) == 12


def test_valid_annotations_give_no_warning(content, warnings):
    content['annotations'][3]['bbox'] = [-5, -5, 20, 20]  # partly outside
    content['annotations'][4]['iscrowd'] = 1
    check_annotations(content, 'a.json')
    check_annotations(content, 'a.json', 'val')
    assert warnings == []


def test_a_file_without_a_usable_box_is_refused(content):
    for annotation in content['annotations']:
        annotation['bbox'] = [0.4, 0.4, 0.2, 0.2]  # relative to the image, as in YOLO's format
    with pytest.raises(
        ValueError, match=r'has no box that can be used.*: 12 \(1, 2, 3 and 9 more\)'
    ):
        check_annotations(content, 'a.json')


def corners(annotation):
    x, y, width, height = annotation['bbox']
    annotation['bbox'] = [x, y, x + width, y + height]


@pytest.mark.parametrize('part', [1, 2])
def test_corners_in_place_of_sizes_are_refused(content, warnings, part):
    for number, annotation in enumerate(content['annotations']):
        annotation['bbox'] = [20 + 2 * number, 20 + 2 * number, 12, 12]
    for annotation in content['annotations'][::part]:
        corners(annotation)
    message = r'seems to have corners for boxes.*: \d+ \(\d+, \d+, \d+.*width = x2 - x1'
    with pytest.raises(ValueError, match=message):
        check_annotations(content, 'a.json')
    # The remedy in the message works.
    for annotation in content['annotations'][::part]:
        x, y, right, bottom = annotation['bbox']
        annotation['bbox'] = [x, y, right - x, bottom - y]
    check_annotations(content, 'a.json')
    assert warnings == []


def test_a_single_box_that_may_be_corners_is_pointed_out(content, warnings):
    content['annotations'][3]['bbox'] = [30, 30, 60, 60]
    check_annotations(content, 'a.json')
    assert 'reach beyond their image, and as corners x1 y1 x2 y2 they fit: 1 (4)' in warnings[0]


def test_large_or_slightly_protruding_boxes_are_not_taken_for_corners(content, warnings):
    for annotation, box in zip(
        content['annotations'],
        [[0, 0, 64, 64], [1, 1, 64, 64], [2, 2, 64, 60], [30, 30, 36, 36], [40, 40, 30, 30]] * 3,
    ):
        annotation['bbox'] = box
    check_annotations(content, 'a.json')
    assert warnings == []


@pytest.mark.parametrize('change', ['ids from 0', 'no area', 'strings', 'byte order mark'])
def test_files_of_other_tools_are_used_as_they_are(content, own_data, warnings, change):
    for number, annotation in enumerate(content['annotations']):
        if change == 'ids from 0':
            annotation['id'] = number
        elif change == 'no area':
            del annotation['area'], annotation['iscrowd']
        elif change == 'strings':
            annotation['bbox'] = list(map(str, annotation['bbox']))
    root = own_data(content)
    if change == 'byte order mark':
        path = Path(root, 'annotations/train.json')
        path.write_text(path.read_text(), encoding='utf-8-sig')
    for split in ('train', 'val'):
        with checked_annotations(split):
            dataset = images_of(root)
        assert sum(len(dataset.get_data_info(i)['instances']) for i in range(12)) == 12
    assert warnings == []


def test_more_classes_than_mmdetection_has_colours_can_be_drawn(content, own_data):
    classes = [f'class {i}' for i in range(200)]
    content['categories'] = [dict(id=i, name=name) for i, name in enumerate(classes)]
    root = own_data(content)
    with checked_annotations('test'):
        dataset = CocoDataset(
            data_root=root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes),
        )
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    found = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 20, 20]]), scores=torch.ones(1), labels=torch.tensor([199])
    )
    drawn = visualizer._draw_instances(
        PHOTO, found, dataset.metainfo['classes'], dataset.metainfo['palette']
    )
    assert (drawn != PHOTO).any()


def test_each_split_needs_its_own_fields(content):
    for annotation in content['annotations']:
        del annotation['iscrowd']
    check_annotations(content, 'a.json', 'train')
    # Otherwise pycocotools would raise at the first evaluation.
    with pytest.raises(ValueError, match='annotations without "iscrowd": 12'):
        check_annotations(content, 'a.json', 'val')
    del content['annotations']
    check_annotations(content, 'a.json', 'test')  # as in COCO's own test sets
    del content['annotations']
    with pytest.raises(ValueError, match='no list "annotations"'):
        check_annotations(content, 'a.json', 'val')


@pytest.mark.parametrize(
    'data', [b'', b'{"images": [', b'\xff\xfe\x00', b'PK\x03\x04', b'[' * 100_000]
)
def test_a_file_that_is_not_json_is_named(tmp_path, data):
    path = tmp_path / 'a.json'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'a\.json is not JSON \(.*download or export it again'):
        read_annotations(str(path))


def test_after_the_check_mmdetection_reads_as_before(content, own_data):
    own = CocoDataset.COCOAPI
    del content['images']
    root = own_data(content)
    with pytest.raises(ValueError, match='no list "images"'), checked_annotations('train'):
        CocoDataset(data_root=root, ann_file='annotations/train.json')
    assert CocoDataset.COCOAPI is own


def test_the_parts_of_wrapped_datasets_are_found():
    parts = [CocoDataset(lazy_init=True) for _ in range(2)]
    assert list(innermost_datasets(ConcatDataset(parts, lazy_init=True))) == parts
    assert list(innermost_datasets(RepeatDataset(parts[0], 2, lazy_init=True))) == parts[:1]


def images_of(root):
    return CocoDataset(
        data_root=root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('disc', 'square')),
        pipeline=[dict(type='LoadImageFromFile')],
    )


@pytest.mark.parametrize(
    'files, message',
    [
        ({'3.png': None}, r'1 of its 12 images are missing: .*images/3\.png \(image id 3\);'),
        ({'3.png': b''}, r'1 of its 12 images are empty: .*images/3\.png \(image id 3\);'),
        (
            {f'{i}.png': None for i in range(5)},
            r'5 of .*0\.png.*1\.png.*2\.png \(.*2\) and 2 more;',
        ),
    ],
)
def test_missing_and_empty_images_are_found_before_training(content, own_data, files, message):
    dataset = images_of(own_data(content, files))
    with pytest.raises(ValueError, match=message):
        check_images(dataset, 'train')


def test_a_few_images_of_another_size_are_a_warning_and_many_an_error(content, own_data, warnings):
    small = encoded('.png', PHOTO[:32, :16])
    dataset = images_of(own_data(content, {'3.png': small}))
    check_images(dataset, 'train')
    (said,) = warnings
    assert '1 are of another size than it says' in said
    assert 'images/3.png (image id 3): 64x64, not 16x32' in said
    for number in range(7):
        os.remove(dataset.get_data_info(number)['img_path'])
        Path(dataset.get_data_info(number)['img_path']).write_bytes(small)
    with pytest.raises(ValueError, match=r'7 are of another size.*0\.png.*put back the images'):
        check_images(dataset, 'train')


def opened_by_the_check(dataset, monkeypatch):
    opened, size = [], images_module.image_size
    monkeypatch.setattr(
        images_module, 'image_size', lambda path: opened.append(int(Path(path).stem)) or size(path)
    )
    check_images(dataset, 'train')
    return opened


def test_a_thousand_evenly_spread_images_of_a_large_dataset_are_opened(
    content, own_data, monkeypatch, warnings
):
    root = own_data({})
    image = content['images'][0]
    images = [{**image, 'id': i, 'file_name': f'{i}.png'} for i in range(2500)]
    # Every tenth image has another size in the annotations.
    images[::10] = [{**each, 'width': 99} for each in images[::10]]
    for each in images[12:]:
        Path(root, 'images', each['file_name']).symlink_to(Path(root, 'images', '0.png'))
    Path(root, 'annotations/train.json').write_text(json.dumps({**content, 'images': images}))
    opened = opened_by_the_check(images_of(root), monkeypatch)
    assert len(opened) == 1000
    assert {after - before for before, after in zip(opened, opened[1:] + [2500])} == {2, 3}
    (said,) = warnings
    wrong = sum(each % 10 == 0 for each in opened)
    assert said.startswith('of 1000 of the 2500 images') and f'train.json {wrong} are' in said


def test_every_image_of_a_small_dataset_is_opened_by_the_main_process_alone(
    content, own_data, monkeypatch
):
    dataset = images_of(own_data(content))
    assert opened_by_the_check(dataset, monkeypatch) == list(range(12))
    monkeypatch.setattr(images_module.dist, 'is_main_process', lambda: False)
    assert opened_by_the_check(dataset, monkeypatch) == []


def test_a_truncated_image_is_reported_before_the_run(content, own_data, warnings):
    dataset = images_of(own_data(content, {'3.png': encoded('.png', PHOTO)[:-300]}))
    check_images(dataset, 'train')
    (said,) = warnings or ['']
    # How much of a damaged file is an image depends on the version of OpenCV.
    assert ('images/3.png (image id 3)' in said) == (
        mmcv.imread(dataset.get_data_info(3)['img_path']) is None
    )


def test_a_folder_that_cannot_be_listed_is_not_an_error(content, own_data, monkeypatch):
    dataset = images_of(own_data(content))

    def forbidden(path):
        raise PermissionError(path)

    monkeypatch.setattr(os, 'scandir', forbidden)
    check_images(dataset, 'train')


@pytest.fixture(params=['python', 'python -O'])
def _assertions(request, monkeypatch):
    """MMCV's loader with and without its assertions."""
    if request.param == 'python -O':
        source = textwrap.dedent(inspect.getsource(LoadImageFromFile.transform))
        names = {}
        exec(
            compile(source, 'loader', 'exec', optimize=1),
            LoadImageFromFile.transform.__globals__,
            names,
        )
        monkeypatch.setattr(LoadImageFromFile, 'transform', names['transform'])


@pytest.mark.usefixtures('_assertions')
@pytest.mark.parametrize(
    'data',
    [
        b'not an image',
        *[encoded('.jpg', PHOTO)[:size] for size in (100, 700, -300, -2)],
        *[encoded('.png', PHOTO)[:size] for size in (40, 3000)],
    ],
)
def test_a_damaged_image_is_used_or_named(content, own_data, data):
    # How much of a damaged file is an image depends on the version of OpenCV.
    dataset = images_of(own_data(content, {'3.png': data}))
    check_images(dataset, 'train')
    name_faulty_images(dataset)
    assert dataset[4]['img'].shape == (64, 64, 3)
    try:
        assert dataset[3]['img'].shape == (64, 64, 3)
    except ValueError as error:
        assert "images/3.png (id 3) can't be used: it is not an image, or" in str(error)


@pytest.mark.usefixtures('_assertions')
def test_the_damaged_image_within_a_mosaic_is_named(content, own_data):
    root = own_data(content, {'7.png': b'not an image'})
    dataset = images_of(root)

    def mosaic(results):
        return LoadImageFromFile()(dict(results, img_path=f'{root}images/7.png'))

    dataset.pipeline = mosaic
    name_faulty_images(dataset)
    with pytest.raises(ValueError, match=r'images/7\.png \(id 7\)'):
        dataset[3]


def test_other_errors_keep_their_traceback(content, own_data):
    dataset = images_of(own_data(content))

    def mistaken(results):
        raise AssertionError('unrelated')

    dataset.pipeline = mistaken
    name_faulty_images(dataset)
    with pytest.raises(AssertionError, match='unrelated'):
        dataset[3]


def test_odd_images_and_boxes_are_trained_on(kd_config, options, content, own_data):
    grey = PHOTO[..., 0]
    files = {
        '0.png': encoded('.jpg', grey),
        '1.png': encoded('.png', grey),
        '2.png': encoded('.png', PHOTO.astype(np.uint16) * 257),
        '3.png': encoded('.png', np.dstack([PHOTO, grey])),
        # One pixel, unlike the size in the annotations.
        '4.png': encoded('.png', PHOTO[:1, :1]),
    }
    content['annotations'][5]['bbox'] = [-20, -20, 50, 50]
    content['annotations'][6]['bbox'] = [5, 5, 0, 10]
    content['annotations'][7]['bbox'] = [100, 100, 10, 10]
    content['annotations'][8]['category_id'] = 9
    content['annotations'][9]['iscrowd'] = 1
    options.update(data_root=own_data(content, files), max_epochs=1, num_epochs_stage2=0)
    options.update(val_interval=1)
    runner = train(kd_config, work_dir=options['data_root'] + 'run', cfg_options=options)
    assert runner.iter == 3
    assert math.isfinite(runner.message_hub.get_scalar('train/loss').data[0].sum())
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() >= 0


def test_batches_without_a_box_are_trained_on(kd_config, options, content, own_data):
    empty = {**content, 'annotations': []}
    options.update(data_root=own_data(empty, val_content=content), max_epochs=1)
    options.update(num_epochs_stage2=0, train_on_background=True)
    options.update({'train_dataloader.dataset.indices': 4})
    runner = train(kd_config, work_dir=options['data_root'] + 'run', cfg_options=options)
    scalars = runner.message_hub.log_scalars
    losses = {name: scalars[f'train/{name}'].data[0] for name in ('loss', 'student.loss_bbox')}
    assert runner.iter == 1
    assert np.isfinite(losses['loss']).all() and not losses['student.loss_bbox'].any()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_boxes_that_are_all_crowds_are_refused(content, own_data, split):
    for annotation in content['annotations']:
        annotation['iscrowd'] = 1
    dataset = images_of(own_data(content))
    dataset.filter_cfg = dict(filter_empty_gt=True)
    runner = SimpleNamespace(model=None, _train_loop=dict(), _val_loop=dict())
    runner.train_dataloader = runner.val_dataloader = SimpleNamespace(dataset=dataset)
    with pytest.raises(ValueError, match=f'no image of the {split} annotation file .* crowd'):
        check_datasets(runner, split)
    # Without filtering, such images are trained on as background.
    dataset.filter_cfg = None
    check_datasets(runner, 'train')


def test_a_worker_that_meets_a_damaged_image_ends_the_run(kd_config, options, content, own_data):
    """It does not hang, although the workers stay alive after raising."""
    root = own_data(content, {'3.png': b'not an image'})
    options.update(data_root=root, train_num_workers=1)
    done = tool(
        *['train.py', kd_config, '--work-dir', f'{root}run', '--cfg-options'],
        *as_arguments(options),
        timeout=300,
    )
    assert done.returncode == 2
    message = done.stderr.strip().split('\n')[-1]
    assert message.startswith(f"error: the image {root}images/3.png (id 3) can't be used: ")
    assert 'Traceback' not in done.stderr
    assert message.removeprefix('error: ') in next(Path(root).glob('run/*/*.log')).read_text()
