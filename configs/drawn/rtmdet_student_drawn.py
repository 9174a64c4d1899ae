# The student of tools/quickstart.sh, undistilled: a quarter of the teacher's weights.
_base_ = './rtmdet_teacher_drawn.py'

# ======================= Frequently modified =======================
deepen_factor = 0.167
widen_factor = 0.25
# Fewer than the teacher's: only a teacher that is clearly better can teach.
max_epochs = 16
val_interval = 4  # in epochs

# ======================= What follows from it =======================
model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
train_cfg = dict(max_epochs=max_epochs, val_interval=val_interval)
param_scheduler = [
    dict(schedule, begin=max_epochs // 4, end=max_epochs, T_max=max_epochs - max_epochs // 4)
    if schedule.type == 'CosineAnnealingLR'
    else schedule
    for schedule in _base_.param_scheduler
]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
custom_hooks = [
    dict(hook, switch_epoch=max_epochs - _base_.num_epochs_stage2)
    if hook.type == 'mmdet.PipelineSwitchHook'
    else hook
    for hook in _base_.custom_hooks
]
