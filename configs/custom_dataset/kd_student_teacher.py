# RTMDet-tiny distilled from the RTMDet-s of rtmdet_teacher.py, on the same dataset.
_base_ = './rtmdet_student.py'
custom_imports = dict(imports=['rtm_kd'], allow_failed_imports=False)

# ======================= What is yours: change this =======================
# The teacher: its config and its trained checkpoint.
teacher = '{{ fileDirname }}/rtmdet_teacher.py'
teacher_ckpt = 'work_dirs/rtmdet_teacher/epoch_40.pth'

# ======================= Possibly modified =======================
loss_weight = 1.0  # of each level's distillation loss
tau = 1.0  # temperature of the softmax over space

# ======================= What follows from it =======================
model = dict(
    _delete_=True,
    type='rtm_kd.FpnTeacherDistill',
    architecture=_base_.model,
    teacher=teacher,
    teacher_ckpt=teacher_ckpt,
    distiller=dict(
        type='rtm_kd.FpnDistiller',  # written out in kd_tiny_rtmdet_s_neck_300e_coco.py
        # The last convolution of each FPN level, before its norm and activation.
        source='neck.out_layers.{}.conv',
        loss_weight=loss_weight,
        tau=tau,
    ),
)

custom_hooks = [
    *_base_.custom_hooks,
    # Ends together with mosaic.
    dict(
        type='rtm_kd.DistillationLossDetachHook',
        detach_epoch=_base_.max_epochs - _base_.num_epochs_stage2,
    ),
]
