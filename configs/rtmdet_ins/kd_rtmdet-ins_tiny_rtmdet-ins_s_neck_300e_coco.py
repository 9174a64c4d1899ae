# RTMDet-Ins-tiny distilled from RTMDet-Ins-s. COCO val mask mAP that MMDetection's authors
# published: student alone 35.4, teacher 38.7. MMYOLO's RTMDet-Ins can't be trained, so the student
# is MMDetection's; the teacher may be a plain RTMDet as well.
_base_ = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = _base_.data_root
# Classes of the student. The teacher may have others: only its backbone and neck are used.
num_classes = _base_.model.bbox_head.num_classes
train_batch_size_per_gpu = _base_.train_dataloader.batch_size
base_lr = _base_.base_lr
max_epochs = _base_.max_epochs
# Last epochs, without mosaic and without distillation.
stage2_num_epochs = _base_.stage2_num_epochs

# The student is `_base_`; both may be of any size. A `package::path`, the path of a config file,
# or a whole model dict.
teacher = 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet-ins_s_8xb32-300e_coco/rtmdet-ins_s_8xb32-300e_coco_20221121_212604-fdc5d7ec.pth'
# MMDetection's name for the last layers of the neck; in MMYOLO's teachers it is neck.out_layers.
teacher_layers = 'neck.out_convs'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
stage2_epoch = max_epochs - stage2_num_epochs

model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The last convolution of each FPN level, before its norm and activation.
        source='neck.out_convs.{}.conv',
        teacher_source=teacher_layers + '.{}.conv',
        loss_weight=loss_weight,
        tau=tau,
    ),
)

train_dataloader = dict(batch_size=train_batch_size_per_gpu, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr))
# Images per step that base_lr is meant for; change both together.
auto_scale_lr = dict(base_batch_size=256, enable=False)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs - max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs, dynamic_intervals=[(stage2_epoch, 1)])
custom_hooks = [
    *[
        dict(hook, switch_epoch=stage2_epoch) if hook.type == 'PipelineSwitchHook' else hook
        for hook in _base_.custom_hooks
    ],
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=stage2_epoch),
]
