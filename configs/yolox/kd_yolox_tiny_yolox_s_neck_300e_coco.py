# YOLOX-tiny distilled from YOLOX-s, both with RTMDet's hyperparameters. COCO val mAP that
# MMYOLO's authors published: student alone 34.3, teacher 41.9.
_base_ = 'mmyolo::yolox/yolox_tiny_fast_8xb32-300e-rtmdet-hyp_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = _base_.data_root
# Classes of the student. The teacher may have others: only its backbone and neck are used.
num_classes = _base_.num_classes
train_batch_size_per_gpu = _base_.train_batch_size_per_gpu
base_lr = _base_.base_lr
max_epochs = _base_.max_epochs
# Last epochs, without mosaic and without distillation.
num_last_epochs = _base_.num_last_epochs

# The student is `_base_`; both may be of any size. A `package::path`, the path of a config file,
# or a whole model dict.
teacher = 'mmyolo::yolox/yolox_s_fast_8xb32-300e-rtmdet-hyp_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmyolo/v0/yolox/yolox_s_fast_8xb32-300e-rtmdet-hyp_coco/yolox_s_fast_8xb32-300e-rtmdet-hyp_coco_20230210_134645-3a8dfbd7.pth'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
# YOLOXModeSwitchHook switches one epoch early.
stage2_epoch = max_epochs - num_last_epochs - 1

model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The last convolution of each FPN level, before its norm and activation, as for RTMDet.
        source='neck.out_layers.{}.conv',
        loss_weight=loss_weight,
        tau=tau,
    ),
)

train_dataloader = dict(batch_size=train_batch_size_per_gpu, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + _base_.val_ann_file)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr))
# Images per step that base_lr is meant for; change both together.
auto_scale_lr = dict(base_batch_size=256, enable=False)
constant_lr_epoch = max_epochs - num_last_epochs
param_scheduler = [
    dict(type='mmdet.QuadraticWarmupLR', by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=5,
        T_max=constant_lr_epoch,
        end=constant_lr_epoch,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='ConstantLR', by_epoch=True, factor=1, begin=constant_lr_epoch, end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, dynamic_intervals=[(constant_lr_epoch, 1)])
custom_hooks = [
    *[
        dict(hook, num_last_epochs=num_last_epochs) if hook.type == 'YOLOXModeSwitchHook' else hook
        for hook in _base_.custom_hooks
    ],
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=stage2_epoch),
]
