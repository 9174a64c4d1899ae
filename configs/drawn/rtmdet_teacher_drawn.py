# The teacher of tools/quickstart.sh: RTMDet-tiny on a drawn dataset, from scratch. The weights
# beside it, rtmdet_teacher_drawn-dbefc97e.pth, are its result: val mAP 0.710.
_base_ = 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = 'data/drawn/'  # drawn on first use
deepen_factor = 0.167
widen_factor = 0.375
train_batch_size_per_gpu = 16
train_num_workers = 0
max_epochs = 36
num_epochs_stage2 = 2  # last epochs, without mosaic
base_lr = 0.003  # for the batch size above, on one device
val_interval = 12  # in epochs
load_from = None

# ======================= Possibly modified =======================
img_scale = (128, 128)  # width, height, in pixels: the size of the drawings
random_resize_ratio_range = (0.8, 1.25)
# Below 1, because a short run has to learn whole objects early. Above 0, because the 16 positions
# of an image at stride 32 are so similar that batch norm's statistics of a small batch are wrong in
# evaluation, and that level then detects objects everywhere; four images in one help.
mosaic_prob = 0.5
lr_warmup_iters = 30
# Momentum of the moving average of the weights, which covers about the last 50 steps. With the
# 0.0002 of a run of 300 epochs, the average of a run of 640 steps ends 160 steps behind.
ema_momentum = 0.02
ema_gamma = 100  # in steps: how soon it forgets the first weights

# ======================= What follows from it =======================
train_ann_file = 'annotations/train.json'
val_ann_file = 'annotations/val.json'
class_names = ('disc', 'ring', 'square', 'triangle', 'star', 'cross')
num_classes = len(class_names)
metainfo = dict(classes=class_names)
stage2_epoch = max_epochs - num_epochs_stage2

model = dict(
    backbone=dict(
        deepen_factor=deepen_factor,
        widen_factor=widen_factor,
        # Weights pretrained on ImageNet would be a download.
        init_cfg=None,
    ),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor, num_classes=num_classes)),
    train_cfg=dict(assigner=dict(num_classes=num_classes)),
)

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
augment = [
    dict(
        type='mmdet.RandomResize',
        scale=img_scale,
        ratio_range=random_resize_ratio_range,
        resize_type='mmdet.Resize',
        keep_ratio=True,
    ),
    dict(type='mmdet.RandomCrop', crop_size=img_scale),
    dict(type='mmdet.YOLOXHSVRandomAug'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.Pad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='mmdet.PackDetInputs'),
]
mosaic = dict(
    type='Mosaic',
    img_scale=img_scale,
    use_cached=True,
    max_cached_images=_base_.mosaic_max_cached_images,
    pad_val=114.0,
    prob=mosaic_prob,
)
train_pipeline = [*load, mosaic, *augment]
train_pipeline_stage2 = [*load, *augment]
# Padded at the bottom and the right, as in training, if img_scale is not a square.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=img_scale, keep_ratio=True),
    dict(type='mmdet.Pad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=train_batch_size_per_gpu,
    num_workers=train_num_workers,
    persistent_workers=train_num_workers > 0,
    pin_memory=False,
    dataset=dict(
        _delete_=True,
        type='rtm_kd.DrawnDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file=train_ann_file,
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=train_batch_size_per_gpu,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        _delete_=True,
        type='rtm_kd.DrawnDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file=val_ann_file,
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_ann_file)
test_evaluator = val_evaluator

train_cfg = dict(
    max_epochs=max_epochs,
    val_interval=val_interval,
    dynamic_intervals=None,  # an evaluation takes as long as half an epoch here
)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=_base_.lr_start_factor,
        by_epoch=False,
        begin=0,
        end=lr_warmup_iters,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=max_epochs // 4,
        end=max_epochs,
        T_max=max_epochs - max_epochs // 4,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
randomness = dict(seed=0)
default_hooks = dict(
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=1), logger=dict(interval=10)
)
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=ema_momentum,
        gamma=ema_gamma,
        update_buffers=True,
        strict_load=False,
        priority=49,
    ),
    dict(
        type='mmdet.PipelineSwitchHook',
        switch_epoch=stage2_epoch,
        switch_pipeline=train_pipeline_stage2,
    ),
]
