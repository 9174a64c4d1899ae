# RTMDet-tiny on the dataset of rtmdet_teacher.py: the student, undistilled.
_base_ = './rtmdet_teacher.py'

max_epochs = 32
load_from = None  # checkpoint to start from, for example a COCO one

# ======================= What follows from it =======================
deepen_factor = 0.167
widen_factor = 0.375
num_epochs_stage2 = _base_.num_epochs_stage2

model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
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
