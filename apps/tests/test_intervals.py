"""Intervals against scipy, and what a gain is worth in steps."""

import math

import numpy as np
import pytest
from adanat.metrics import equivalent_steps, gap_share, paired_gain, t_interval
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

VALUES = [551.2, 548.9, 553.3, 550.1, 549.5]
OTHERS = [500.3, 497.7, 505.1, 499.8, 498.0]


def test_t_interval_equals_scipy():
    interval = t_interval(VALUES, confidence=0.9)
    low, high = stats.t.interval(0.9, df=4, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.mean == pytest.approx(np.mean(VALUES))
    assert interval.half_width == pytest.approx((high - low) / 2)
    assert interval.count == 5


def test_paired_gain_equals_scipys_paired_test():
    expected = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    interval = paired_gain(VALUES, OTHERS)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.low > 0


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_a_common_shift_of_each_pair_does_not_matter(shifts):
    baseline = [3.0 + shift for shift in shifts]
    candidate = [1.0 + shift for shift in shifts]
    interval = paired_gain(baseline, candidate)
    assert (interval.low, interval.high) == pytest.approx((2.0, 2.0), abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_intervals_refuse_what_has_none(values):
    with pytest.raises(ValueError, match="values"):
        t_interval(values)


def test_intervals_refuse_bad_pairs_and_confidence():
    with pytest.raises(ValueError, match="5 and 4 values"):
        paired_gain(VALUES, OTHERS[:4])
    with pytest.raises(ValueError, match=r"confidence is 1\.0"):
        t_interval(VALUES, confidence=1.0)


def test_gap_share():
    assert gap_share(600, 600, 500) == 0
    assert gap_share(600, 500, 500) == 1
    assert gap_share(600, 475, 500) == 1.25
    with pytest.raises(ValueError, match="no gap"):
        gap_share(500, 480, 500)


def test_equivalent_steps_interpolates_between_measured_counts():
    distances = {16: 500.0, 4: 600.0, 8: 540.0}
    assert equivalent_steps(distances, 600) == 4
    assert equivalent_steps(distances, 700) == 4
    assert equivalent_steps(distances, 570) == 6
    assert equivalent_steps(distances, 520) == 12
    assert equivalent_steps(distances, 500) == 16
    assert equivalent_steps(distances, 499) == math.inf
    with pytest.raises(ValueError, match="no distances"):
        equivalent_steps({}, 1)
