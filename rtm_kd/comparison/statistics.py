"""What can be said from a few pairs of runs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from scipy import stats

from rtm_kd.utils import UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How far the second values of pairs are above the first.

    Attributes:
        values (list[float]): Second minus first, of each pair.
        mean (float): Their mean.
        low, high (float, optional): The ends of the confidence interval of the mean; None for
            a single pair, from which nothing can be said of chance.
    """

    values: list[float]
    mean: float
    low: Optional[float] = None
    high: Optional[float] = None

    @property
    def verdict(self) -> str:
        """``'gain'`` or ``'loss'`` if the interval is on one side of 0, else ``'none'``.

        ``'unknown'`` without an interval.
        """
        if self.low is None or self.high is None:
            return 'unknown'
        if self.low > 0:
            return 'gain'
        return 'loss' if self.high < 0 else 'none'


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Difference:
    r"""Compare pairs, with Student's interval of the mean of their differences.

    .. math:: \bar d \pm t_{n-1} \cdot s_d / \sqrt n

    What both values of a pair have in common, as two runs of one seed have their first weights
    and their images, drops out of the difference. The interval takes the differences for
    normally distributed, as the paired t-test does.

    Args:
        first, second (Sequence[float]): As many values, in the same order of pairs.
        confidence (float): Between 0 and 1.

    Raises:
        ValueError: If there are none, or not as many of both.
    """
    if not first or len(first) != len(second):
        raise UsageError(f'{len(first)} values and {len(second)} are no pairs')
    values = [b - a for a, b in zip(first, second)]
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Difference(values, mean)
    t = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(values, mean, mean - half, mean + half)


def spread(values: Sequence[float]) -> Optional[float]:
    """Return the standard deviation (n - 1), None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None
