# YOLOv8-n distilled from YOLOv8-s. COCO val mAP that MMYOLO's authors published:
# student alone 37.2, teacher 44.2.
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = _base_.data_root
# Classes of the student. The teacher may have others: only its backbone and neck are used.
num_classes = _base_.num_classes
train_batch_size_per_gpu = _base_.train_batch_size_per_gpu
base_lr = _base_.base_lr
max_epochs = _base_.max_epochs
# Last epochs, without mosaic and without distillation.
close_mosaic_epochs = _base_.close_mosaic_epochs

# The student is `_base_`; both may be of any size. A `package::path`, the path of a config file,
# or a whole model dict.
teacher = 'mmyolo::yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmyolo/v0/yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco/yolov8_s_syncbn_fast_8xb16-500e_coco_20230117_180101-5aa5f0f1.pth'

# ======================= Possibly modified =======================
# Weight of each level's distillation loss: in short runs it then had the share of the gradient
# that it has in RTMDet's recipe: YOLOv8's own losses are larger.
loss_weight = 3.0
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
stage2_epoch = max_epochs - close_mosaic_epochs

model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The input of the head at each FPN level, as in DAMO-YOLO. YOLOv8's out_layers are
        # empty and follow the norm and activation of the level's last block.
        source='neck.out_layers.{}',
        loss_weight=loss_weight,
        tau=tau,
        # MMYOLO's YOLOv8 head multiplies its losses by these; otherwise the share of distillation
        # would shrink as the batch grows.
        scale_by=('batch_size', 'world_size'),
    ),
)

# Without the blur, grey and CLAHE of one image in a hundred each, which need albumentations.
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'mmdet.Albu']
train_pipeline_stage2 = [step for step in _base_.train_pipeline_stage2 if step.type != 'mmdet.Albu']
train_dataloader = dict(
    batch_size=train_batch_size_per_gpu,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + _base_.val_ann_file)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr, batch_size_per_gpu=train_batch_size_per_gpu))
# Images per step that base_lr is meant for; change both together.
auto_scale_lr = dict(base_batch_size=128, enable=False)
default_hooks = dict(param_scheduler=dict(max_epochs=max_epochs))
train_cfg = dict(
    max_epochs=max_epochs, dynamic_intervals=[(stage2_epoch, _base_.val_interval_stage2)]
)
custom_hooks = [
    *[
        dict(hook, switch_epoch=stage2_epoch, switch_pipeline=train_pipeline_stage2)
        if hook.type == 'mmdet.PipelineSwitchHook'
        else hook
        for hook in _base_.custom_hooks
    ],
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=stage2_epoch),
]
