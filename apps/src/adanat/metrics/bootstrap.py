"""Intervals by resampling images, for the figures that resampling does not bias.

The Frechet distance and the Inception Score are not among them: a resample repeats vectors, which
shrinks the covariance and moves the figure itself. Their intervals come from generation seeds.
"""

from __future__ import annotations

import math

import numpy as np

from adanat.metrics.distances import DoubleArray, check_pair
from adanat.metrics.features import FloatArray
from adanat.metrics.intervals import Interval
from adanat.metrics.neighbours import BoolArray


def share_interval(
    inside: BoolArray, *, seed: int, num_resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Percentile interval of a share of images (precision, recall) over resampled images.

    The balls stay as they are: growing or shrinking them with the resample would bias the share.

    Args:
        inside: bool (N,), of which the mean is the figure.
        seed: Seed of the resampling.
        num_resamples: Resamples, at least 2.
        confidence: Coverage, in (0, 1).
    """
    generator = np.random.default_rng(seed)
    # How many of N resampled images lie inside is binomial: no need to draw them one by one.
    counts = generator.binomial(len(inside), inside.mean(), size=num_resamples)
    return _percentiles(counts / len(inside), float(inside.mean()), len(inside), confidence)


def mean_interval(
    values: FloatArray, *, seed: int, num_resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Percentile interval of a mean over images (PSNR, SSIM) over resampled images.

    Args:
        values: float (N,), one an image.
        seed: Seed of the resampling.
        num_resamples: Resamples, at least 2.
        confidence: Coverage, in (0, 1).
    """
    generator, exact = np.random.default_rng(seed), values.astype(np.float64)
    means = [generator.choice(exact, size=len(exact)).mean() for _ in range(num_resamples)]
    return _percentiles(np.array(means), float(exact.mean()), len(exact), confidence)


def kernel_distance_interval(
    generated: FloatArray,
    reference: FloatArray,
    *,
    value: float,
    seed: int,
    max_vectors: int = 2000,
    num_resamples: int = 500,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the unbiased kernel distance (KID) over images resampled on both sides.

    A vector drawn twice is never paired with itself, so that the mean of the resamples is the
    estimate and not above it. The kernel matrix is that of at most `max_vectors` images a side;
    the spread is then scaled to the whole sets by the root of the sizes, which is exact to first
    order for different sets and too wide for equal ones.

    Args:
        generated: (N, D) features.
        reference: (M, D) features.
        value: The figure to put in the middle, `kernel_distance` of the whole sets.
        seed: Seed of the choice of vectors and of the resampling.
        max_vectors: Vectors a side in the kernel matrix.
        num_resamples: Resamples, at least 2.
        confidence: Coverage, in (0, 1).
    """
    check_pair(generated, reference)
    generator = np.random.default_rng(seed)
    whole = min(len(generated), len(reference))
    size = min(whole, max_vectors)
    fake, real = (
        features[generator.permutation(len(features))[:size]].astype(np.float64)
        for features in (generated, reference)
    )
    weights = [
        generator.multinomial(size, np.full(size, 1 / size), size=num_resamples).astype(np.float64)
        for _ in range(2)
    ]
    across = np.einsum("ri,ri->r", weights[0] @ _kernel(fake, real), weights[1]) / size**2
    values = _within(fake, weights[0]) + _within(real, weights[1]) - 2 * across
    spread = (values - values.mean()) * math.sqrt(size / whole)
    return _percentiles(value + spread, value, whole, confidence)


def _kernel(first: DoubleArray, second: DoubleArray) -> DoubleArray:
    """The cubic kernel of KID (arXiv 1801.01401)."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def _within(vectors: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Mean kernel (R,) over pairs of different vectors, for each of the weights (R, N)."""
    kernel = _kernel(vectors, vectors)
    np.fill_diagonal(kernel, 0)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    return np.asarray(np.einsum("ri,ri->r", weights @ kernel, weights) / pairs)


def _percentiles(values: DoubleArray, mean: float, count: int, confidence: float) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(mean=mean, low=float(low), high=float(high), count=count, confidence=confidence)
