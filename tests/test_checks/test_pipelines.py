"""Warnings about pipelines that resize or pad differently in training and testing."""

import re

import pytest
from helpers import ROOT
from mmengine.config import Config

from rtm_kd.apis.train import train
from rtm_kd.checks.pipelines import check_pipelines
from rtm_kd.utils import load_config

LETTERBOX = [
    dict(type='YOLOv5KeepRatioResize', scale=(256, 256)),
    dict(type='LetterResize', scale=(256, 256), pad_val=dict(img=114)),
]


def own(name):
    return load_config(str(ROOT / 'configs/custom_dataset' / name))


def faults(changes):
    cfg = own('kd_student_teacher.py')
    cfg.merge_from_dict(changes)
    return check_pipelines(cfg)


@pytest.mark.parametrize(
    'config',
    ['custom_dataset/kd_student_teacher.py', 'drawn/kd_student_rtmdet_teacher_drawn.py'],
)
def test_our_configs_resize_alike_in_training_and_testing(config):
    assert check_pipelines(load_config(str(ROOT / 'configs' / config))) == []


def test_mmyolos_padding_on_all_sides_is_pointed_out():
    found = check_pipelines(own('../kd_tiny_rtmdet_s_neck_300e_coco.py'))
    assert len(found) == 1
    assert 'val and test' in found[0]
    assert 'padding on all sides instead of below and on the right' in found[0]
    assert "MMYOLO's recipes for COCO live with it" in found[0]


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'val_dataloader.dataset.pipeline': LETTERBOX}, 'of val resizes.*padding on all sides'),
        ({'test_dataloader.dataset.pipeline.2.size': (320, 320)}, 'of test.*size 320x320 instead'),
        ({'val_dataloader.dataset.pipeline.1.keep_ratio': False}, 'shape stretched instead'),
        ({'val_dataloader.dataset.pipeline.2.pad_val': 0}, 'colour of the padding 0x0x0'),
        ({'train_pipeline': None, 'custom_hooks.1.switch_pipeline': LETTERBOX}, 'padding below'),
        (
            {'train_dataloader.dataset.pipeline.8.size': (640, 640)},
            'begins with images of 640x640 pixels and ends with 256x256',
        ),
    ],
)
def test_a_difference_is_named(changes, message):
    found = faults(changes)
    assert len(found) == 1
    assert re.search(message, found[0])


def test_without_a_second_stage_the_training_pipeline_is_compared():
    cfg = own('rtmdet_teacher.py')
    cfg.custom_hooks = []
    assert check_pipelines(cfg) == []
    cfg.val_dataloader.dataset.pipeline = LETTERBOX
    assert 'that of training (padding' in check_pipelines(cfg)[0]


def test_the_transforms_of_a_wrapping_dataset_are_compared_too():
    pad = dict(type='mmdet.Pad', size=(64, 64))
    whole = dict(
        dataset=dict(type='MultiImageMixDataset', dataset=dict(pipeline=[]), pipeline=[pad])
    )
    alone = dict(dataset=dict(pipeline=LETTERBOX))
    found = check_pipelines(Config(dict(train_dataloader=whole, val_dataloader=alone)))
    assert 'size 256x256 instead of 64x64' in found[0]
    assert check_pipelines(Config(dict(model=dict()))) == []


def test_training_warns_of_it_too(kd_config, options, tmp_path, capsys):
    options['val_dataloader.dataset.pipeline.1.keep_ratio'] = False
    options['teacher_ckpt'] = 'nowhere.pth'
    with pytest.raises(ValueError, match='nowhere'):
        train(kd_config, work_dir=str(tmp_path / 'run'), cfg_options=options)
    said = capsys.readouterr()
    assert 'WARNING - the pipeline of val resizes images' in said.out + said.err
