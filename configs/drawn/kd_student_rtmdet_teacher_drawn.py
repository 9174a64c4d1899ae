# The student of tools/quickstart.sh, distilled from its teacher.
_base_ = './rtmdet_student_drawn.py'

# ======================= Frequently modified =======================
# The teacher: its config and its trained weights, in float16 (docs/method.md).
teacher = '{{ fileDirname }}/rtmdet_teacher_drawn.py'
teacher_ckpt = '{{ fileDirname }}/rtmdet_teacher_drawn-dbefc97e.pth'

# ======================= Possibly modified =======================
# Of each level's distillation loss. The 1.0 of COCO's recipes gains less in so few steps
# (docs/method.md).
loss_weight = 3.0
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
