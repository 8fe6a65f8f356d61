"""Intervals over seeds, and what a gain is worth in decoding steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its two-sided confidence interval.

    Attributes:
        mean: Sample mean.
        low: Lower end.
        high: Upper end.
        count: Number of values.
        confidence: Coverage, in (0, 1).
    """

    mean: float
    low: float
    high: float
    count: int
    confidence: float

    @property
    def half_width(self) -> float:
        """Half the interval's length, for "mean ± half width"."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's t-interval of a mean.

    Args:
        values: One value a seed, at least two, all finite.
        confidence: Coverage, in (0, 1).

    Raises:
        ValueError: If the values are too few or not finite, or the confidence is out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"{array.size} values given; an interval needs at least 2")
    if not np.isfinite(array).all():
        raise ValueError(f"values are {list(values)}; all must be finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    mean = float(array.mean())
    error = float(array.std(ddof=1)) / math.sqrt(array.size)
    half = error * float(stdtrit(array.size - 1, (1 + confidence) / 2))
    return Interval(
        mean=mean, low=mean - half, high=mean + half, count=array.size, confidence=confidence
    )


def paired_gain(
    baseline: Sequence[float], candidate: Sequence[float], *, confidence: float = 0.95
) -> Interval:
    """Interval of baseline - candidate over paired seeds: positive where the candidate's is lower.

    Args:
        baseline: A distance a seed.
        candidate: The other policy's distance under the same seeds, in the same order.
        confidence: Coverage, in (0, 1).

    Raises:
        ValueError: If the two differ in length, or as `t_interval` says.
    """
    if len(baseline) != len(candidate):
        raise ValueError(
            f"{len(baseline)} and {len(candidate)} values given; paired values must be as many"
        )
    return t_interval(
        [first - second for first, second in zip(baseline, candidate, strict=True)],
        confidence=confidence,
    )


def gap_share(few_steps: float, candidate: float, many_steps: float) -> float:
    """Share of the gap between a schedule's few and many steps that a candidate closes.

    0 is the schedule at few steps, 1 the schedule at many steps; more than 1 is possible.

    Raises:
        ValueError: If more steps do not lower the distance, so that there is no gap.
    """
    gap = few_steps - many_steps
    if not gap > 0:
        raise ValueError(
            f"the distance is {few_steps} at few and {many_steps} at many steps; "
            "without a fall there is no gap to close"
        )
    return (few_steps - candidate) / gap


def equivalent_steps(distances: Mapping[int, float], target: float) -> float:
    """Steps at which a schedule first reaches `target`, linear between the measured step counts.

    Args:
        distances: Number of steps -> distance of the schedule.
        target: The distance to reach.

    Returns:
        The (fractional) number of steps; the smallest measured one where that already reaches the
        target, and infinity where none does.

    Raises:
        ValueError: If `distances` is empty.
    """
    if not distances:
        raise ValueError("no distances given; at least one number of steps is needed")
    counts = sorted(distances)
    if distances[counts[0]] <= target:
        return float(counts[0])
    for before, after in pairwise(counts):
        if distances[after] <= target:
            fall = distances[before] - distances[after]
            return before + (after - before) * (distances[before] - target) / fall
    return math.inf
