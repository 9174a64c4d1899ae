# PP-YOLOE+ s distilled from PP-YOLOE+ m. COCO val mAP that MMYOLO's authors published:
# student alone 43.5, teacher 49.5. PP-YOLOE has no second stage: it is distilled to the end.
_base_ = 'mmyolo::ppyoloe/ppyoloe_plus_s_fast_8xb8-80e_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = _base_.data_root
# Classes of the student. The teacher may have others: only its backbone and neck are used.
num_classes = _base_.num_classes
train_batch_size_per_gpu = _base_.train_batch_size_per_gpu
base_lr = _base_.base_lr
max_epochs = _base_.max_epochs

# The student is `_base_`; both may be of any size. A `package::path`, the path of a config file,
# or a whole model dict.
teacher = 'mmyolo::ppyoloe/ppyoloe_plus_m_fast_8xb8-80e_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmyolo/v0/ppyoloe/ppyoloe_plus_m_fast_8xb8-80e_coco/ppyoloe_plus_m_fast_8xb8-80e_coco_20230104_193132-e4325ada.pth'
# Checkpoint that the student starts from, trained on Objects365; None trains from scratch.
load_from = _base_.load_from

# ======================= Possibly modified =======================
# Weight of each level's distillation loss. At 1 its share of the gradient is that of RTMDet's
# recipe, as measured in short runs.
loss_weight = 1.0
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The input of the head at each FPN level, as in DAMO-YOLO. PP-YOLOE's out_layers are
        # empty and follow the norm and activation of the level's last stage.
        source='neck.out_layers.{}',
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
auto_scale_lr = dict(base_batch_size=64, enable=False)
default_hooks = dict(param_scheduler=dict(total_epochs=int(max_epochs * 1.2)))
train_cfg = dict(max_epochs=max_epochs)
