# RTMDet-tiny on the dataset of rtmdet_teacher.py: the student, undistilled.
_base_ = './rtmdet_teacher.py'

max_epochs = 32
load_from = None  # checkpoint to start from, for example a COCO one

# ======================= Possibly modified =======================
# A small model gets a milder augmentation, as in MMYOLO's recipe for its size.
mosaic_max_cached_images = 20  # at most the number of training images
mixup_max_cached_images = 10
mixup_prob = 0.5
random_pop = False  # which image leaves a full cache: any, or the oldest

# ======================= What follows from it =======================
deepen_factor = 0.167
widen_factor = 0.375
num_epochs_stage2 = _base_.num_epochs_stage2

model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
cached = {
    'Mosaic': dict(max_cached_images=mosaic_max_cached_images, random_pop=random_pop),
    'YOLOv5MixUp': dict(
        max_cached_images=mixup_max_cached_images, random_pop=random_pop, prob=mixup_prob
    ),
}
train_pipeline = [dict(step, **cached.get(step.type, {})) for step in _base_.train_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(
    max_epochs=max_epochs,
    dynamic_intervals=[(max_epochs - num_epochs_stage2, _base_.val_interval_stage2)],
)
param_scheduler = [
    dict(schedule, begin=max_epochs // 2, end=max_epochs, T_max=max_epochs - max_epochs // 2)
    if schedule.type == 'CosineAnnealingLR'
    else schedule
    for schedule in _base_.param_scheduler
]
custom_hooks = [
    dict(hook, switch_epoch=max_epochs - num_epochs_stage2)
    if hook.type == 'mmdet.PipelineSwitchHook'
    else hook
    for hook in _base_.custom_hooks
]
