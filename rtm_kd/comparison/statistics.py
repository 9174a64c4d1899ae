"""Statistics of pairs of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from scipy import stats

from rtm_kd.utils import UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """A quantity of the runs of one side: its values, mean and standard deviation (n - 1).

    A single value has no deviation, ``sd`` is None.
    """

    values: list[float]
    mean: float
    sd: Optional[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Sample':
        """Return the sample of some values."""
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(list(values), float(np.mean(values)), sd)

    def __str__(self) -> str:
        return f'{self.mean:.3f}' + ('' if self.sd is None else f' ± {self.sd:.3f}')


@dataclass(frozen=True)
class Difference:
    """How far the second values of pairs are above the first."""

    values: list[float]  # second minus first, of each pair
    mean: float
    # The confidence interval of the mean; None for a single pair.
    low: Optional[float] = None
    high: Optional[float] = None
    # 'gain' or 'loss' if the interval is on one side of 0, else 'none'; 'unknown' without one.
    verdict: str = 'unknown'

    def __str__(self) -> str:
        interval = '' if self.low is None else f' [{self.low:+.3f}, {self.high:+.3f}]'
        return f'{self.mean:+.3f}{interval}'


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    r"""Compare pairs of values, with the interval of the paired t-test.

    .. math:: \bar d \pm t_{n-1} \cdot s_d / \sqrt n

    What both values of a pair share, as two runs of one seed share first weights and images,
    drops out of the difference.

    Raises:
        UsageError: If there are no pairs, or not as many first as second values.
    """
    if not first or len(first) != len(second):
        raise UsageError(f'cannot pair {len(first)} values with {len(second)}')
    values = np.subtract(second, first)
    mean = float(values.mean())
    if len(values) == 1:
        return Difference(values.tolist(), mean)
    # Not scipy's ttest_rel: its interval is NaN if all differences are the same.
    half = float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    low, high = mean - half, mean + half
    verdict = 'gain' if low > 0 else 'loss' if high < 0 else 'none'
    return Difference(values.tolist(), mean, low, high, verdict)
