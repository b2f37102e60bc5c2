"""Percentiles of all samples: nothing is estimated, put into buckets or thrown away.

The rule is that of HDR histograms: the smallest sample that at least so large a share of all samples do not exceed. So
every percentile is a sample that was measured.
"""

from collections.abc import Iterable
from typing import NamedTuple

_PERMILLE = 1000


class Percentiles(NamedTuple):
    """Of one set of samples, in their unit; None where there are none."""

    samples: int
    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    max: float | None


def percentiles(samples: Iterable[float]) -> Percentiles:
    """The percentiles of the samples, in any order."""
    ordered = sorted(samples)
    if not ordered:
        return Percentiles(0, None, None, None, None, None)
    p50, p90, p99, p99_9 = (_at(ordered, permille) for permille in (500, 900, 990, 999))
    return Percentiles(len(ordered), p50, p90, p99, p99_9, ordered[-1])


def _at(ordered: list[float], permille: int) -> float:
    # In whole numbers: 0.999 * 1000 need not be 999.
    return ordered[-(-len(ordered) * permille // _PERMILLE) - 1]
