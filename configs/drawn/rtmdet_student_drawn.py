# The student of tools/quickstart.sh, undistilled: a quarter of the teacher's weights.
_base_ = './rtmdet_teacher_drawn.py'

# ======================= Frequently modified =======================
deepen_factor = 0.167
widen_factor = 0.25

# ======================= What follows from it =======================
model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
