# RTMDet-tiny distilled from the RTMDet-s of rtmdet_s_bccd.py, on the same dataset.
_base_ = './rtmdet_tiny_bccd.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= What is yours: change this =======================
# The teacher: its config, and the checkpoint that training it left.
teacher = '{{ fileDirname }}/rtmdet_s_bccd.py'
teacher_ckpt = 'work_dirs/rtmdet_s_bccd/epoch_40.pth'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
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
    architecture=_base_.model,
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

custom_hooks = [
    *_base_.custom_hooks,
    # Together with the end of mosaic.
    dict(
        type='rtm_kd.DistillationLossDetachHook',
        detach_epoch=_base_.max_epochs - _base_.num_epochs_stage2,
    ),
]
