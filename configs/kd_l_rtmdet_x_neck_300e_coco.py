# RTMDet-l distilled from RTMDet-x. COCO val mAP that MMYOLO's authors published:
# student alone 51.4, distilled 52.3, teacher 52.8.
_base_ = 'mmyolo::rtmdet/rtmdet_l_syncbn_fast_8xb32-300e_coco.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= Frequently modified =======================
data_root = _base_.data_root
# Classes of the student. The teacher may have others: only its backbone and neck are used.
num_classes = _base_.num_classes
train_batch_size_per_gpu = _base_.train_batch_size_per_gpu
base_lr = _base_.base_lr
max_epochs = _base_.max_epochs
# Last epochs, without mosaic and without distillation.
num_epochs_stage2 = _base_.num_epochs_stage2

# The student is `_base_`; both may be of any size. A `package::path`, the path of a config file,
# or a whole model dict.
teacher = 'mmyolo::rtmdet/rtmdet_x_syncbn_fast_8xb32-300e_coco.py'
# Path or URL.
teacher_ckpt = 'https://download.openmmlab.com/mmyolo/v0/rtmdet/rtmdet_x_syncbn_fast_8xb32-300e_coco/rtmdet_x_syncbn_fast_8xb32-300e_coco_20221231_100345-b85cd476.pth'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
stage2_epoch = max_epochs - num_epochs_stage2
levels = ('fpn0', 'fpn1', 'fpn2')
# The last convolution of each FPN level, before its norm and activation.
recorders = {
    level: dict(type='ModuleOutputs', source=f'neck.out_layers.{i}.conv')
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
val_evaluator = dict(ann_file=data_root + _base_.val_ann_file)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=base_lr))
# Images per step that base_lr is meant for; change both together.
auto_scale_lr = dict(base_batch_size=256, enable=False)
param_scheduler = [
    dict(type='LinearLR', start_factor=_base_.lr_start_factor, by_epoch=False, begin=0, end=1000),
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
train_cfg = dict(
    max_epochs=max_epochs, dynamic_intervals=[(stage2_epoch, _base_.val_interval_stage2)]
)
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        strict_load=False,
        priority=49,
    ),
    dict(
        type='mmdet.PipelineSwitchHook',
        switch_epoch=stage2_epoch,
        switch_pipeline=_base_.train_pipeline_stage2,
    ),
    dict(type='rtm_kd.DistillationLossDetachHook', detach_epoch=stage2_epoch),
]
