"""One config of each other detector family, through the same classes."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT, batch, build_a_copy_alone, connected, take_a_step
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from rtm_kd.registry import HOOKS
from rtm_kd.utils import load_config

# Channels of student and teacher at each level, the recorded modules, and the option for the number
# of last epochs without mosaic (None if all epochs are alike).
FAMILIES = {
    'yolov8/kd_yolov8_n_yolov8_s_neck_500e_coco.py': (
        [(64, 128), (128, 256), (256, 512)],
        'neck.out_layers.{}',
        'close_mosaic_epochs',
    ),
    'yolov5/kd_yolov5_n_yolov5_s_neck_300e_coco.py': (
        [(64, 128), (128, 256), (256, 512)],
        'neck.out_layers.{}',
        None,
    ),
    'yolov6/kd_yolov6_n_yolov6_s_neck_400e_coco.py': (
        [(32, 64), (64, 128), (128, 256)],
        'neck.out_layers.{}',
        'num_last_epochs',
    ),
    'yolox/kd_yolox_tiny_yolox_s_neck_300e_coco.py': (
        [(96, 128)] * 3,
        'neck.out_layers.{}.conv',
        'num_last_epochs',
    ),
    'ppyoloe/kd_ppyoloe_plus_s_ppyoloe_plus_m_neck_80e_coco.py': (
        [(96, 144), (192, 288), (384, 576)],
        'neck.out_layers.{}',
        None,
    ),
    'rtmdet_ins/kd_rtmdet-ins_tiny_rtmdet-ins_s_neck_300e_coco.py': (
        [(96, 128)] * 3,
        'neck.out_convs.{}.conv',
        'stage2_num_epochs',
    ),
}


def with_masks(data):
    """The same batch in MMDetection's format, with a mask for each box."""
    images, samples = data
    found = []
    for i, metainfo in enumerate(samples['img_metas']):
        boxes = samples['bboxes_labels']
        boxes = boxes[boxes[:, 0] == i]
        size = dict(img_shape=(64, 64), pad_shape=(64, 64))
        found.append(DetDataSample(metainfo=dict(metainfo, **size)))
        found[i].gt_instances = InstanceData(
            labels=boxes[:, 1].long(),
            bboxes=boxes[:, 2:],
            masks=BitmapMasks(np.ones((len(boxes), 64, 64), np.uint8), 64, 64),
        )
    return images, found


@pytest.mark.parametrize('name', FAMILIES)
def test_a_copy_alone_builds_and_takes_a_step(name, tmp_path, monkeypatch):
    channels, source, _ = FAMILIES[name]
    cfg, model = build_a_copy_alone(name, tmp_path)
    assert connected(model) == channels
    for sources in (model.distiller.student_sources, model.distiller.teacher_sources):
        assert list(sources.values()) == [source.format(i) for i in range(3)]
    assert model.student.bbox_head.num_classes == 4

    compared, given = [], []
    compute = model.distiller.compute_distill_losses
    monkeypatch.setattr(
        model.distiller,
        'compute_distill_losses',
        lambda *records: compared.extend(records[:2]) or compute(*records),
    )
    model.bbox_head.register_forward_pre_hook(
        lambda module, args: given.extend(feature.clone() for feature in args[0])
    )
    # The heads of YOLOv6 and PP-YOLOE read the epoch: their first assigner needs larger images.
    MessageHub.get_current_instance().update_info('epoch', 100)
    take_a_step(model, with_masks(batch()) if 'ins' in name else batch())
    if not source.endswith('.conv'):
        # No in-place operation changed them after the head received them.
        for (feature,), own in zip(compared[0].values(), given):
            assert torch.equal(feature, own)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        build_optim_wrapper(model, cfg.optim_wrapper)


@pytest.mark.parametrize('name', FAMILIES)
def test_options_reach_head_schedule_and_detach(name):
    _, _, last_epochs = FAMILIES[name]
    options = dict(
        max_epochs=40, base_lr=0.002, num_classes=3, train_batch_size_per_gpu=4, data_root='d/'
    )
    cfg = load_config(
        str(ROOT / 'configs' / name), {**options, **({last_epochs: 8} if last_epochs else {})}
    )
    assert cfg.train_cfg.max_epochs == 40
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.optimizer.lr == 0.002
    assert cfg.optim_wrapper.optimizer.get('batch_size_per_gpu', 4) == 4
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == 'd/'
    assert cfg.val_evaluator.ann_file == 'd/annotations/instances_val2017.json'
    assert cfg.model.architecture.num_classes == 3
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert 'mmdet.Albu' not in steps and len(steps) > 4

    schedule = cfg.default_hooks.param_scheduler
    lasts = {'YOLOv5ParamSchedulerHook': 'max_epochs', 'PPYOLOEParamSchedulerHook': 'total_epochs'}
    if schedule.type in lasts:
        assert schedule[lasts[schedule.type]] == (48 if 'ppyoloe' in name else 40)
    else:
        assert cfg.param_scheduler[-1].end == 40
        assert cfg.param_scheduler[1].eta_min_ratio == 0.05  # of base_lr
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    detach = hooks.get('rtm_kd.DistillationLossDetachHook')
    if last_epochs is None:
        assert detach is None
    elif 'YOLOXModeSwitchHook' not in hooks:
        (switch,) = (hook for type_, hook in hooks.items() if 'PipelineSwitchHook' in type_)
        assert switch.switch_epoch == detach.detach_epoch == 32
        assert 'mmdet.Albu' not in [step.type for step in switch.switch_pipeline]


def test_rtmdet_ins_learns_from_a_plain_mmyolo_rtmdet_too(tmp_path):
    _, model = build_a_copy_alone(
        'rtmdet_ins/kd_rtmdet-ins_tiny_rtmdet-ins_s_neck_300e_coco.py',
        tmp_path,
        teacher='mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py',
        teacher_layers='neck.out_layers',
    )
    assert connected(model) == [(96, 96)] * 3
    assert model._teacher._convert is None


def test_yolov5s_weight_of_the_classification_follows_the_classes(tmp_path):
    name = 'yolov5/kd_yolov5_n_yolov5_s_neck_300e_coco.py'

    text = (ROOT / 'configs' / name).read_text()
    own = tmp_path / 'own.py'
    own.write_text(text.replace('num_classes = _base_.num_classes', 'num_classes = 3'))
    by_option = load_config(str(ROOT / 'configs' / name), dict(num_classes=3))
    for cfg in (load_config(str(own)), by_option):
        loss = cfg.model.architecture.bbox_head.loss_cls
        assert loss.loss_weight == pytest.approx(0.5 * 3 / 80)


def test_yolox_begins_its_second_stage_where_distillation_ends(tmp_path, monkeypatch):
    """MMYOLO's hook accesses the detector's head, and switches an epoch early."""
    name = 'yolox/kd_yolox_tiny_yolox_s_neck_300e_coco.py'
    cfg, model = build_a_copy_alone(name, tmp_path, max_epochs=40, num_last_epochs=8)
    monkeypatch.setattr(Runner, 'build_dataloader', lambda cfg: None)
    cfg.custom_hooks[0].pop('priority')
    switch = HOOKS.build(cfg.custom_hooks[0])
    runner = SimpleNamespace(
        model=model,
        cfg=cfg,
        max_epochs=40,
        logger=logging.getLogger(__name__),
        train_loop=SimpleNamespace(),
    )
    for runner.epoch in range(40):
        switch.before_train_epoch(runner)
        if model.student.bbox_head.use_bbox_aux:
            break
    assert runner.epoch == cfg.custom_hooks[-1].detach_epoch == 31
