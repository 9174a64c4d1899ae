# RTMDet-tiny on the dataset of rtmdet_s_bccd.py: the student, undistilled.
_base_ = './rtmdet_s_bccd.py'

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
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(begin=max_epochs // 2, end=max_epochs, T_max=max_epochs - max_epochs // 2)
custom_hooks = _base_.custom_hooks
custom_hooks[1].update(switch_epoch=max_epochs - num_epochs_stage2)
