"""One loss of distillation, ready to run: which features, through what, into which function."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import nn

from rtm_kd.utils.errors import UsageError

from ..connectors import BatchStatisticsNorm
from ..losses import ChannelWiseDivergence
from .recorder import Records


@dataclass(frozen=True)
class Tap:
    """Where an argument of a loss comes from."""

    from_student: bool  # whether from the student's records, else from the teacher's
    recorder: str
    record_idx: int = 0  # which call of the recorded module
    data_idx: Optional[int] = None  # which of its outputs, where it has several
    connector: Optional[nn.Module] = None  # what the feature goes through
    connector_idx: Optional[int] = None  # which output of the connector, where it has several

    def recorded(self, student_records: Records, teacher_records: Records) -> Any:
        """Return what the connector gets.

        Raises:
            ValueError: If there is no such record or output.
        """
        outputs = (student_records if self.from_student else teacher_records)[self.recorder]
        if not -len(outputs) <= self.record_idx < len(outputs):
            raise UsageError(
                f'recorder "{self.recorder}" has {len(outputs)} record of each image batch, one '
                f'for each call of its module, so there is no record_idx={self.record_idx}'
            )
        output = outputs[self.record_idx]
        if self.data_idx is None:
            return output
        several = len(output) if isinstance(output, (list, tuple)) else 0
        if not -several <= self.data_idx < several:
            raise UsageError(
                f'recorder "{self.recorder}" records {several or "one tensor and no list of"} '
                f'outputs, so there is no data_idx={self.data_idx}'
            )
        return output[self.data_idx]

    def __call__(
        self, student_records: Records, teacher_records: Records, in_float32: bool = False
    ) -> Any:
        feature = self.recorded(student_records, teacher_records)
        if in_float32 and not self.from_student:
            # Connectors expect the teacher in the student's precision.
            feature = as_float32(feature)
        if self.connector is not None:
            feature = self.connector(feature)
        if self.connector_idx is not None:
            feature = feature[self.connector_idx]
        return as_float32(feature) if in_float32 else feature


@dataclass(frozen=True)
class FeatureComparison:
    """A loss and its arguments."""

    taps: dict[str, Tap]  # by the argument of the loss
    loss: Callable[..., torch.Tensor]  # a module, or PKD's norms and the divergence in one
    fused: bool = False  # whether it is the latter
    in_float32: bool = False  # whether what the taps give is brought to float32

    def __call__(self, student_records: Records, teacher_records: Records) -> torch.Tensor:
        records = student_records, teacher_records
        arguments = {name: tap(*records, self.in_float32) for name, tap in self.taps.items()}
        return self.loss(**arguments)


def fastest(comparison: FeatureComparison) -> FeatureComparison:
    """Return what computes the same faster, and in float32 in whichever precision the models ran.

    PKD's norms and the divergence after them become one function. Any other loss gets float32,
    since CPU autocast does not promote losses: a softmax stays bfloat16.
    """
    return _fused(comparison) or replace(comparison, in_float32=True)


def _fused(comparison: FeatureComparison) -> Optional[FeatureComparison]:
    loss, taps = comparison.loss, comparison.taps
    if type(loss) is not ChannelWiseDivergence or set(taps) != {'preds_S', 'preds_T'}:
        return None
    before, eps = {}, {}
    for name, tap in taps.items():
        split = tap.connector.split_norm() if hasattr(tap.connector, 'split_norm') else None
        before_norm, norm = split or (None, None)
        if not isinstance(norm, BatchStatisticsNorm) or tap.connector_idx is not None:
            return None
        before[name] = replace(tap, connector=before_norm)
        eps[name.replace('preds', 'eps')] = norm.eps
    return FeatureComparison(before, functools.partial(loss.fused_with_norm, **eps), fused=True)


def as_float32(output: Any) -> Any:
    """Return a tensor, or each tensor of a tuple or list, in float32 if it is a floating one.

    It is contiguous, which losses that use ``view`` rely on, in whichever format the models ran.
    """
    if isinstance(output, (list, tuple)):
        return type(output)(map(as_float32, output))
    if torch.is_tensor(output) and output.is_floating_point():
        output = output.float().contiguous()
    return output
