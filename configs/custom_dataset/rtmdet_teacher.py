# RTMDet-s on your own dataset: the teacher. Written for the blood cells of BCCD.
_base_ = 'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py'

# ======================= What is yours: change this =======================
data_root = 'data/bccd/'
train_ann_file = 'annotations/train.json'
train_data_prefix = 'images/'
val_ann_file = 'annotations/val.json'
val_data_prefix = 'images/'
# Names of the annotations' categories; their order is the order of the labels.
class_names = ('RBC', 'WBC', 'Platelets')

img_scale = (256, 256)  # width, height, in pixels
train_batch_size_per_gpu = 8
train_num_workers = 2
max_epochs = 40
num_epochs_stage2 = 4  # last epochs, without mosaic
base_lr = 0.001  # for the batch size above, on one GPU
val_interval = 4  # in epochs
load_from = None  # checkpoint to start from, for example a COCO one
train_on_background = False  # also train on images without a box, against false positives

# ======================= Possibly modified =======================
lr_warmup_iters = 100
random_resize_ratio_range = (0.5, 2.0)
mosaic_max_cached_images = 40  # at most the number of training images
mixup_max_cached_images = 20
mixup_prob = 1.0  # less helps a tiny model trained alone, and costs its distillation

# ======================= What follows from it =======================
num_classes = len(class_names)
metainfo = dict(classes=class_names)

model = dict(
    # Weights pretrained on ImageNet would be a download; load_from is the better start.
    backbone=dict(init_cfg=None),
    bbox_head=dict(head_module=dict(num_classes=num_classes)),
    train_cfg=dict(assigner=dict(num_classes=num_classes)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # The mosaic resizes as well, but only after caching the whole photograph.
    dict(type='mmdet.Resize', scale=img_scale, keep_ratio=True),
    dict(
        type='Mosaic',
        img_scale=img_scale,
        use_cached=True,
        max_cached_images=mosaic_max_cached_images,
        pad_val=114.0,
    ),
    dict(
        type='mmdet.RandomResize',
        scale=(img_scale[0] * 2, img_scale[1] * 2),
        ratio_range=random_resize_ratio_range,
        resize_type='mmdet.Resize',
        keep_ratio=True,
    ),
    dict(
        type='mmdet.RandomCrop',
        crop_size=img_scale,
        allow_negative_crop=train_on_background,
    ),
    dict(type='mmdet.YOLOXHSVRandomAug'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.Pad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(
        type='YOLOv5MixUp',
        use_cached=True,
        max_cached_images=mixup_max_cached_images,
        prob=mixup_prob,
    ),
    dict(type='mmdet.PackDetInputs'),
]
train_pipeline_stage2 = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.RandomResize',
        scale=img_scale,
        ratio_range=random_resize_ratio_range,
        resize_type='mmdet.Resize',
        keep_ratio=True,
    ),
    dict(
        type='mmdet.RandomCrop',
        crop_size=img_scale,
        allow_negative_crop=train_on_background,
    ),
    dict(type='mmdet.YOLOXHSVRandomAug'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.Pad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='mmdet.PackDetInputs'),
]
# Padded at the bottom and the right, as in training. MMYOLO's own pipeline pads above and
# below as well, which can ruin the mAP of a model trained at a small size on few images.
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
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file=train_ann_file,
        data_prefix=dict(img=train_data_prefix),
        filter_cfg=dict(filter_empty_gt=not train_on_background, min_size=0),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=train_batch_size_per_gpu,
    num_workers=train_num_workers,
    persistent_workers=train_num_workers > 0,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_data_prefix),
        # Every image at img_scale, without padding that never occurs in training.
        batch_shapes_cfg=None,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_ann_file)
test_evaluator = val_evaluator

train_cfg = dict(
    max_epochs=max_epochs,
    val_interval=val_interval,
    dynamic_intervals=[(max_epochs - num_epochs_stage2, _base_.val_interval_stage2)],
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
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs - max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(interval=val_interval, max_keep_ckpts=2, save_best='coco/bbox_mAP'),
    logger=dict(interval=10),
)
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        strict_load=False,
        priority=49,
    ),
    dict(
        type='mmdet.PipelineSwitchHook',
        switch_epoch=max_epochs - num_epochs_stage2,
        switch_pipeline=train_pipeline_stage2,
    ),
]
