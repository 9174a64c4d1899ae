"""Evaluation is correct for any ids of the boxes and any order of the categories."""

import copy
import json

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

from rtm_kd.compat.coco_ground_truth import complete_annotations

CLASSES = ('disc', 'square')


@pytest.fixture
def content(data_root):
    """Twelve images with a box each."""
    return json.loads((data_root / 'annotations/train.json').read_text())


def score_of_perfect_detections(path, truth, classes=CLASSES):
    """mAP of a detector that finds every box, with labels in the order of the classes."""
    names = {category['id']: category['name'] for category in truth['categories']}
    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = dict(classes=classes)
    for image in truth['images']:
        own = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        boxes = torch.tensor([a['bbox'] for a in own], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            bboxes=boxes,
            scores=torch.full((len(own),), 0.9),
            labels=torch.tensor([classes.index(names[a['category_id']]) for a in own]),
        )
        metric.process({}, [dict(img_id=image['id'], ori_shape=(64, 64), pred_instances=found)])
    return metric.evaluate(len(truth['images']))['coco/bbox_mAP']


def numbered(*ids):
    def change(content):
        for annotation, identity in zip(content['annotations'], ids):
            annotation['id'] = identity

    return change


def without(*fields):
    def change(content):
        for annotation in content['annotations']:
            for field in fields:
                del annotation[field]

    return change


def in_quotes(content):
    for annotation in content['annotations']:
        annotation.update(bbox=[f'{edge:.4f}' for edge in annotation['bbox']], iscrowd='0')
        annotation['area'] = str(annotation['area'])


@pytest.mark.parametrize(
    'change',
    [
        numbered(*range(12)),
        numbered(*range(-6, 6)),
        numbered(*[1] * 12),
        numbered(*map(str, range(12))),
        numbered(*[f'box {i}' for i in range(12)]),
        numbered(*[None] * 12),
        numbered(*[i / 2 for i in range(12)]),
        without('id'),
        without('iscrowd', 'area'),
        in_quotes,
    ],
)
def test_perfect_detections_score_one(content, tmp_path, change):
    truth = copy.deepcopy(content)
    change(content)
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    assert score_of_perfect_detections(path, truth) == 1


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_any_encoding_of_json_is_read(content, tmp_path, encoding):
    path = tmp_path / 'val.json'
    content['categories'][0]['name'] = 'Größe'
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert score_of_perfect_detections(path, content, ('Größe', 'square')) == 1


@pytest.mark.parametrize('classes', [CLASSES, CLASSES[::-1]])
def test_labels_follow_the_order_of_the_class_names(content, tmp_path, classes):
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    dataset = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img='images'),
        metainfo=dict(classes=classes),
        test_mode=True,
    )
    for index in range(12):
        info = dataset.get_data_info(index)
        (instance,) = info['instances']
        assert classes[instance['bbox_label']] == CLASSES[info['img_id'] % 2]
    assert score_of_perfect_detections(path, content, classes) == 1


def test_of_two_categories_of_one_name_the_one_with_boxes_is_used(content, tmp_path):
    content['categories'].insert(0, dict(id=7, name='disc', supercategory='none'))
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    assert score_of_perfect_detections(path, content) == 1
    # If both have boxes, it is unknown which one is meant, and both stay.
    content['annotations'][0]['category_id'] = 7
    complete_annotations(content)
    assert [category['id'] for category in content['categories']] == [7, 0, 1]


def test_complete_annotations_stay_unchanged(content):
    before = copy.deepcopy(content)
    assert not complete_annotations(content)
    assert content == before
    counted_from_0 = copy.deepcopy(content)
    numbered(*range(12))(counted_from_0)
    assert not complete_annotations(copy.deepcopy(counted_from_0), keep_ids=True)
    assert complete_annotations(counted_from_0)
    assert counted_from_0 == before
