from .fpn_teacher_distill import FpnTeacherDistill

__all__ = ['FpnTeacherDistill']
