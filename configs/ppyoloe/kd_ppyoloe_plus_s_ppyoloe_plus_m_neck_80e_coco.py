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
# What the student starts from: trained on Objects365. None for from scratch.
load_from = _base_.load_from

# ======================= Possibly modified =======================
# Of each level's distillation loss. At 1 they have the share of the gradient that they have in
# RTMDet's recipe, as measured in short runs.
loss_weight = 1.0
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
levels = ('fpn0', 'fpn1', 'fpn2')
# What the head gets of each FPN level, as in DAMO-YOLO. PP-YOLOE's out_layers are empty: they stand
# behind the last stage of the level, whose norm and activation are done.
recorders = {
    level: dict(type='ModuleOutputs', source=f'neck.out_layers.{i}')
    for i, level in enumerate(levels)
}
# PKD: both sides to zero mean and unit variance, by the statistics of the batch.
pkd_norm_cfg = dict(type='BN', affine=False, track_running_stats=False)
# Their channels follow from student and teacher.
connectors = dict()
for level in levels:
    connectors[f'{level}_s'] = dict(
        type='rtm_kd.ConvModuleConnector', bias=False, norm_cfg=pkd_norm_cfg, act_cfg=None
    )
    connectors[f'{level}_t'] = dict(type='rtm_kd.NormConnector', norm_cfg=pkd_norm_cfg)

model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=dict(_base_.model, num_classes=num_classes),
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=connectors,
        distill_losses={
            f'loss_pkd_{level}': dict(
                type='rtm_kd.ChannelWiseDivergence', tau=tau, loss_weight=loss_weight
            )
            for level in levels
        },
        loss_forward_mappings={
            f'loss_pkd_{level}': dict(
                preds_S=dict(from_student=True, recorder=level, connector=f'{level}_s'),
                preds_T=dict(from_student=False, recorder=level, connector=f'{level}_t'),
            )
            for level in levels
        },
    ),
)

train_dataloader = dict(batch_size=train_batch_size_per_gpu, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr))
default_hooks = dict(param_scheduler=dict(total_epochs=int(max_epochs * 1.2)))
train_cfg = dict(max_epochs=max_epochs)
