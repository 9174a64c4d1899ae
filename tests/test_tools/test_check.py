"""The check of a config before a long run."""

import functools
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT
from mmdet.registry import MODELS as DET_MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from rtm_kd.apis import check as module
from rtm_kd.apis.check import effective_share_of_images
from rtm_kd.engine.optimizers import CpuAmpOptimWrapper
from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.models.algorithms.frozen_teacher import FrozenTeacher
from rtm_kd.utils import load_config, say

TEACHER = str(ROOT / 'configs/custom_dataset/rtmdet_teacher.py')

check = functools.partial(module.check, say=say)


@pytest.fixture(scope='module')
def teacher_ckpt(data_root, tmp_path_factory):
    cfg = load_config(TEACHER, dict(class_names=['disc', 'square']))
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return str(path)


def test_reports_data_teacher_step_and_hours_of_a_run(
    kd_config, options, teacher_ckpt, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options.update(teacher_ckpt=teacher_ckpt, max_epochs=300, num_epochs_stage2=20)
    options['teacher'] = dict(cfg_path=TEACHER, num_classes=2)
    found = check(kd_config, images=5, cfg_options=options)
    assert found['data']['train'] == dict(
        images=12, without_boxes=0, boxes=12, classes=dict(disc=6, square=6)
    )
    assert 0 <= found['teacher_mAP'] < 0.2
    step = found['step']
    assert step['detached'] > 0 and step['distilling'] > 0
    # The imported libraries alone take more than this.
    assert step['memory_mb'] > 100
    # Three steps per epoch.
    hours = (280 * step['distilling'] + 20 * step['detached']) * 3 / 3600
    assert found['hours'] == pytest.approx(hours)
    printed = capsys.readouterr().out
    assert 'train: 12 images' in printed and 'on 5 validation images' in printed
    # 840 steps with the teacher are enough for no warning.
    assert 'the run distils for' not in printed
    assert not list(tmp_path.iterdir())


def test_the_teacher_is_tested_with_its_own_weights_and_not_those_of_load_from(
    kd_config, options, teacher_ckpt, tmp_path, monkeypatch
):
    loaded = []
    monkeypatch.setattr(module.Runner, 'load_checkpoint', lambda self, path: loaded.append(path))
    options.update(teacher_ckpt=teacher_ckpt, teacher=dict(cfg_path=TEACHER, num_classes=2))
    options['load_from'] = teacher_ckpt
    assert check(kd_config, images=2, cfg_options=options)['teacher_mAP'] is not None
    assert loaded == []


def test_a_teacher_that_mmdetection_trained_is_tested(kd_config, options, tmp_path):
    cfg = get_config('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py').model
    cfg.backbone.init_cfg, cfg.bbox_head.num_classes = None, 2
    with DefaultScope.overwrite_default_scope('mmdet'):
        content = dict(state_dict=DET_MODELS.build(cfg).state_dict())
    options.update(teacher_ckpt=str(tmp_path / 'teacher.pth'), train_batch_size_per_gpu=2)
    torch.save(content, options['teacher_ckpt'])
    options['teacher'] = dict(cfg_path=TEACHER, num_classes=2)
    assert check(kd_config, images=2, cfg_options=options)['teacher_mAP'] is not None


def test_a_run_without_validation_is_checked(kd_config, options, teacher_ckpt):
    options.update(teacher_ckpt=teacher_ckpt, teacher=dict(cfg_path=TEACHER, num_classes=2))
    options.update(val_dataloader=None, val_evaluator=None, val_cfg=None, test_cfg=None)
    found = check(kd_config, cfg_options=options)
    assert found['teacher_mAP'] is None and found['step']['distilling'] > 0


def test_amp_times_steps_in_mixed_precision(kd_config, options, monkeypatch, capsys):
    seen = []
    step = CpuAmpOptimWrapper.update_params
    monkeypatch.setattr(
        CpuAmpOptimWrapper,
        'update_params',
        lambda self, loss, *args, **kwargs: (seen.append(loss), step(self, loss, *args, **kwargs)),
    )
    options['max_epochs'] = 1
    options['num_epochs_stage2'] = 0
    check(kd_config, images=0, amp=True, cfg_options=options)
    assert seen
    assert 'the whole run: about 1 min' in capsys.readouterr().out


def test_a_class_without_boxes_a_random_teacher_and_another_pipeline_are_pointed_out(
    kd_config, options, data_root, capsys
):
    content = json.loads((data_root / 'annotations/train.json').read_text())
    content['annotations'] = [each for each in content['annotations'] if each['category_id'] == 0]
    (data_root / 'annotations/discs.json').write_text(json.dumps(content))
    options['train_ann_file'] = 'annotations/discs.json'
    options['val_dataloader.dataset.pipeline.1.keep_ratio'] = False
    found = check(kd_config, cfg_options=options)
    assert found['teacher_mAP'] is None
    printed = capsys.readouterr().out
    assert 'no box of square in train' in printed and 'the teacher is random' in printed
    assert 'the pipeline of val resizes images in another way' in printed
    # Two epochs of two steps.
    assert 'warning: the run distils for 4 steps' in printed


@pytest.mark.parametrize('resized', [True, False])
def test_the_memory_estimate_counts_cached_images(
    kd_config, options, data_root, tmp_path, resized, capsys
):
    images = tmp_path / 'images'
    images.mkdir()
    content = json.loads((data_root / 'annotations/train.json').read_text())
    for image in content['images']:
        image.update(width=1000, height=1000)
        Image.new('RGB', (1000, 1000)).save(images / image['file_name'])
    for split in ('train', 'val'):
        path = tmp_path / f'annotations/{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    options['data_root'] = f'{tmp_path}/'
    options['train_num_workers'] = 2
    if not resized:
        options['train_dataloader.dataset.pipeline.2.scale'] = (1000, 1000)
    cache_mb = check(kd_config, images=0, cfg_options=options)['step']['cache_mb']
    # The mosaic caches 12 images of 3 MB in each of the two processes.
    assert (60 < cache_mb < 80) if not resized else (0 < cache_mb < 2)
    assert 'the caches of mosaic and mixup' in capsys.readouterr().out


def test_images_without_boxes_are_counted_if_they_are_trained_on(kd_config, options, data_root):
    content = json.loads((data_root / 'annotations/train.json').read_text())
    content['annotations'] = content['annotations'][:8]
    (data_root / 'annotations/background.json').write_text(json.dumps(content))
    options['train_ann_file'] = 'annotations/background.json'
    options['train_on_background'] = True
    counts = check(kd_config, images=0, cfg_options=options)['data']['train']
    assert (counts['images'], counts['without_boxes']) == (12, 4)


@pytest.mark.parametrize('size', [[100, 100], [64, 100]])
def test_an_image_size_that_the_strides_do_not_divide_is_refused(kd_config, options, size):
    options['img_scale'] = size
    message = f'images of {size[0]}x100 pixels.*multiples of 32.*img_scale'
    with pytest.raises(ValueError, match=message):
        check(kd_config, images=0, cfg_options=options)


def test_a_teacher_of_other_classes_is_not_tested(
    kd_config, options, teacher_ckpt, tmp_path, capsys
):
    content = torch.load(teacher_ckpt)
    head = 'bbox_head.head_module.rtm_cls.0.'
    content['state_dict'][head + 'weight'] = torch.zeros(80, 128, 1, 1)
    torch.save(content, tmp_path / 'coco.pth')
    options['teacher_ckpt'] = str(tmp_path / 'coco.pth')
    assert check(kd_config, cfg_options=options)['teacher_mAP'] is None
    assert 'other classes' in capsys.readouterr().out


def test_a_teacher_with_the_classes_of_coco_is_not_tested_on_others(
    kd_config, options, tmp_path, capsys
):
    teacher = dict(cfg_path=TEACHER, num_classes=80)
    model = MODELS.build(resolve_model_cfg(teacher, 'teacher'))
    options.update(teacher_ckpt=str(tmp_path / 'coco.pth'), teacher=teacher)
    torch.save(dict(state_dict=model.state_dict()), options['teacher_ckpt'])
    cfg = load_config(kd_config, options)
    assert module._teacher_map(cfg, str(tmp_path), 2, say) is None
    assert 'other classes' in capsys.readouterr().out


@pytest.mark.parametrize(
    'metrics, score, said',
    [
        ({'pascal_voc/mAP': 0.4, 'pascal_voc/AP50': 0.5}, 0.4, 'mAP 0.400 on 2'),
        ({'coco/segm_mAP': 0.1, 'coco/bbox_mAP': 0.2}, 0.2, 'mAP 0.200 on 2'),
        # Of a CocoMetric if nothing was detected.
        ({}, 0.0, 'mAP 0.000 on 2'),
        ({'coco/AR@100': 0.1}, None, 'val_evaluator gives no mAP'),
    ],
)
def test_the_teachers_score_is_the_mAP_of_any_metric(
    kd_config, options, teacher_ckpt, tmp_path, monkeypatch, capsys, metrics, score, said
):
    monkeypatch.setattr(module.Runner, 'test', lambda self: metrics)
    options.update(teacher_ckpt=teacher_ckpt, teacher=dict(cfg_path=TEACHER, num_classes=2))
    cfg = load_config(kd_config, options)
    assert module._teacher_map(cfg, str(tmp_path), 2, say) == score
    assert said in capsys.readouterr().out


def test_caches_of_concatenated_datasets_are_added():
    class Pictures(list):
        cached = dict(results_cache=[dict(img=np.zeros(2**20, np.uint8))], max_cached_images=40)
        pipeline = SimpleNamespace(transforms=[SimpleNamespace(**cached)])

    both = SimpleNamespace(datasets=[Pictures(range(3)), Pictures(range(100))])
    loader = SimpleNamespace(dataset=SimpleNamespace(dataset=both), num_workers=2)
    assert module._cache_mb(loader) == 2 * (3 + 40)


@pytest.mark.parametrize('epochs, hours', [(None, 100 * 6), (10, 40 * 6 + 60 * 2), (30, 100 * 6)])
def test_hours_of_a_run_that_counts_iterations(epochs, hours):
    hook = dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=epochs)
    cfg = Config(dict(model=dict(architecture='a.py', teacher='b.py'), custom_hooks=[hook]))
    # MMEngine counts such a run as one epoch.
    runner = SimpleNamespace(cfg=cfg, max_iters=100, max_epochs=1, train_dataloader=range(4))
    assert module._hours(runner, dict(distilling=6 * 3600, detached=2 * 3600)) == hours


@pytest.mark.parametrize(
    'images, changes, message',
    [
        (-1, {}, '--images must be 0 or more, got -1'),
        (5, {'train_ann_file': 'nothing.json'}, 'nothing.json is missing'),
        (5, {'teacher_ckpt': 'nowhere.pth'}, 'no checkpoint file nowhere.pth'),
    ],
)
def test_errors_that_would_stop_the_run_are_one_sentence(
    kd_config, options, images, changes, message
):
    with pytest.raises(ValueError, match=message):
        check(kd_config, images=images, cfg_options={**options, **changes})


def test_the_effective_share_of_images_is_computed():
    torch.manual_seed(0)
    maps = torch.randn(8, 4, 6, 6) + 5
    assert effective_share_of_images(maps) > 0.95
    maps[2] = 5 + 100 * torch.randn(4, 6, 6)
    assert effective_share_of_images(maps) == pytest.approx(1 / 8, abs=0.01)
    assert effective_share_of_images(torch.ones(2, 4, 6, 6)) == 1


@pytest.mark.parametrize('largest, warned', [(1, []), (1000, ['fpn2'])])
def test_a_level_whose_variance_comes_from_few_images_gives_a_warning(
    kd_config, options, teacher_ckpt, monkeypatch, capsys, largest, warned
):
    options.update(teacher_ckpt=teacher_ckpt, teacher=dict(cfg_path=TEACHER, num_classes=2))
    record = FrozenTeacher.record

    def recorded(self, *args, **kwargs):
        records = record(self, *args, **kwargs)
        records = {name: [torch.randn_like(outputs[0])] for name, outputs in records.items()}
        records['fpn2'][0][0] *= largest
        return records

    monkeypatch.setattr(FrozenTeacher, 'record', recorded)
    found = check(kd_config, images=0, cfg_options=options)
    assert found['step']['uneven'] == warned
    printed = capsys.readouterr().out
    assert ("variance of the teacher's features at fpn2" in printed) == bool(warned)


@pytest.mark.parametrize('hook', [None, dict(type='mmrazor.StopDistillHook', stop_epoch=2)])
def test_hours_are_estimated_without_our_detach_hook_too(kd_config, options, tmp_path, hook):
    kept = [] if hook is None else [hook]
    config = tmp_path / 'kd.py'
    config.write_text(
        f'_base_ = {kd_config!r}\ncustom_hooks = [*_base_.custom_hooks[:-1], *{kept!r}]\n'
    )
    found = check(str(config), images=0, cfg_options=options)
    distilled = 3 if hook is None else 2
    step = found['step']
    hours = (distilled * step['distilling'] + (3 - distilled) * step['detached']) * 3 / 3600
    assert found['hours'] == pytest.approx(hours)


def test_training_starts_where_python_has_no_resource_module():
    code = (
        'import sys; sys.modules["resource"] = None\n'
        'from rtm_kd.apis.train import train\n'
        'from pathlib import Path; Path.read_text = lambda *_, **__: ""\n'
        'from rtm_kd.engine.hooks.run_record_hook import peak_memory\n'
        'print("peak", peak_memory())'
    )
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert 'peak 0' in run.stdout
