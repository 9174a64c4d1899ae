# YOLOv6-n distilled from YOLOv6-s. COCO val mAP that MMYOLO's authors published:
# student alone 36.2, teacher 44.0.
_base_ = 'mmyolo::yolov6/yolov6_n_syncbn_fast_8xb32-400e_coco.py'
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
teacher = 'mmyolo::yolov6/yolov6_s_syncbn_fast_8xb32-400e_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmyolo/v0/yolov6/yolov6_s_syncbn_fast_8xb32-400e_coco/yolov6_s_syncbn_fast_8xb32-400e_coco_20221102_203035-932e1d91.pth'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
stage2_epoch = max_epochs - num_last_epochs

model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The input of the head at each FPN level, as in DAMO-YOLO. YOLOv6's out_layers are
        # empty and follow the norm and activation of the level's last stage.
        source='neck.out_layers.{}',
        loss_weight=loss_weight,
        tau=tau,
        # MMYOLO's YOLOv6 head multiplies its losses by the number of processes.
        scale_by=('world_size',),
    ),
)

train_dataloader = dict(batch_size=train_batch_size_per_gpu, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + _base_.val_ann_file)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr, batch_size_per_gpu=train_batch_size_per_gpu))
# Images per step that base_lr is meant for; change both together.
auto_scale_lr = dict(base_batch_size=256, enable=False)
default_hooks = dict(param_scheduler=dict(max_epochs=max_epochs))
train_cfg = dict(max_epochs=max_epochs, dynamic_intervals=[(stage2_epoch, 1)])
custom_hooks = [
    *[
        dict(hook, switch_epoch=stage2_epoch) if hook.type == 'mmdet.PipelineSwitchHook' else hook
        for hook in _base_.custom_hooks
    ],
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=stage2_epoch),
]
