"""Distances between two sets of feature vectors.

The definitions are clean-fid's; this module adds a faster form of the Frechet distance, and the
variant for tiny sets.
None of these is an FID: that name belongs to Inception features alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adanat.metrics.features import FloatArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """Mean and covariance of a feature set.

    Attributes:
        mean: float64 (D,).
        covariance: float64 (D, D), unbiased (divided by count - 1).
        count: Number of vectors; 0 where a file of other people's does not say.
    """

    mean: DoubleArray
    covariance: DoubleArray
    count: int

    @classmethod
    def of(cls, features: FloatArray) -> FeatureStatistics:
        """Statistics of `features` (N, D), in float64; N must be at least 2."""
        _check_features(features)
        double = features.astype(np.float64)
        covariance = np.atleast_2d(np.cov(double, rowvar=False))
        return cls(mean=double.mean(axis=0), covariance=covariance, count=len(double))

    @classmethod
    def of_chunks(cls, chunks: Iterable[FloatArray]) -> FeatureStatistics:
        """Statistics of a set that comes in parts (n, D) and is never held whole.

        Sums are taken about the first part's mean, so that no digits are lost to a large mean.

        Raises:
            ValueError: If there are fewer than 2 vectors in all, or a part is not (n, D).
        """
        count, shift, total, products = 0, None, None, None
        for chunk in chunks:
            if chunk.ndim != 2:
                raise ValueError(f"a part has the shape {chunk.shape}; (n, D) is needed")
            double = chunk.astype(np.float64)
            if shift is None or total is None or products is None:
                shift = double.mean(axis=0)
                total, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
            double -= shift
            count += len(double)
            total += double.sum(axis=0)
            products += double.T @ double
        if shift is None or total is None or products is None or count < 2:
            raise ValueError(f"{count} vectors given; statistics need at least 2")
        covariance = (products - np.outer(total, total) / count) / (count - 1)
        return cls(mean=shift + total / count, covariance=covariance, count=count)

    @cached_property
    def factor(self) -> DoubleArray:
        """R (D, D) with R R^T the covariance; kept, as a sweep asks for it many times."""
        try:
            return np.asarray(np.linalg.cholesky(self.covariance))
        except np.linalg.LinAlgError:  # singular: from fewer vectors than dimensions
            values, vectors = np.linalg.eigh(self.covariance)
            return np.asarray(vectors * np.sqrt(values.clip(min=0)))


def frechet_distance(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """Frechet distance of two Gaussians by symmetric eigenvalues: clean-fid's value, faster.

    With A = R R^T, tr sqrt(A B) equals the sum of the roots of the eigenvalues of R^T B R, which is
    symmetric and positive. This needs one `eigvalsh` once the reference's factor is known, and has
    neither the complex parts nor the retry of a general matrix root.

    Args:
        generated: Statistics of the judged set.
        reference: Statistics of the reference set; its factor is computed once and kept.

    Returns:
        The squared distance, as FID is defined.

    Raises:
        ValueError: If the two dimensions differ.
    """
    if generated.mean.shape != reference.mean.shape:
        raise ValueError(
            f"the feature sets have {generated.mean.size} and {reference.mean.size} dimensions; "
            "they must agree"
        )
    product = reference.factor.T @ generated.covariance @ reference.factor
    values = np.linalg.eigvalsh((product + product.T) / 2)
    difference = generated.mean - reference.mean
    trace = np.trace(generated.covariance) + np.trace(reference.covariance)
    return float(difference @ difference + trace - 2 * np.sqrt(values.clip(min=0)).sum())


def kernel_distance(
    generated: FloatArray,
    reference: FloatArray,
    *,
    seed: int,
    num_subsets: int = 100,
    max_subset_size: int = 1000,
) -> float:
    """Unbiased kernel distance (KID) by clean-fid: cubic polynomial kernel, mean over subsets.

    A subset has as many vectors of each side as the smaller side has, at most `max_subset_size`.

    clean-fid draws the subsets from numpy's global generator; it is seeded here for the call and
    put back afterwards.

    Args:
        generated: (N, D) features.
        reference: (M, D) features.
        seed: Seed of the subset draw; equal seeds make comparisons paired on the reference side.
        num_subsets: Subsets to average over.
        max_subset_size: Vectors a subset, at most.

    Returns:
        The squared maximum mean discrepancy; about 0, also below, for sets of the same kind.
    """
    from cleanfid import fid  # with torchvision, which imports PyTorch's compiler

    check_pair(generated, reference)
    sides: list[FloatArray | DoubleArray] = [reference, generated]
    if len(generated) == len(reference) <= max_subset_size:
        # Every subset is the whole set: one will do, without the rounding that many average out.
        num_subsets, sides = 1, [side.astype(np.float64) for side in sides]
    with _numpy_global_seed(seed):
        return float(
            fid.kernel_distance(*sides, num_subsets=num_subsets, max_subset_size=max_subset_size)
        )


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents:
    """The leading principal components of a reference set.

    A covariance of D dimensions from fewer than D vectors is singular and its distance mostly
    bias; a few dozen components are what a tiny set can carry.

    Attributes:
        mean: float64 (D,).
        axes: float64 (D, K), orthonormal columns by falling variance; fewer than asked for where
            the reference varies along fewer, as the others would be arbitrary.
    """

    mean: DoubleArray
    axes: DoubleArray

    @classmethod
    def fit(cls, reference: FloatArray, num_components: int = 64) -> PrincipalComponents:
        """Fit on the reference set alone, so that every judged set is projected alike.

        Raises:
            ValueError: If `num_components` is not in 1..min(N - 1, D).
        """
        statistics = FeatureStatistics.of(reference)
        most = min(statistics.count - 1, statistics.mean.size)
        if not 1 <= num_components <= most:
            raise ValueError(
                f"num_components is {num_components}; {statistics.count} vectors of "
                f"{statistics.mean.size} dimensions allow 1 to {most}"
            )
        variances, vectors = np.linalg.eigh(statistics.covariance)
        rounding = variances[-1] * len(variances) * np.finfo(variances.dtype).eps
        rank = max(1, int(np.count_nonzero(variances > rounding)))
        num_components = min(num_components, rank)
        return cls(mean=statistics.mean, axes=vectors[:, ::-1][:, :num_components].copy())

    def project(self, features: FloatArray) -> FloatArray:
        """Coordinates (N, K) of `features` (N, D) along the components."""
        return np.asarray((features - self.mean) @ self.axes, dtype=np.float32)


@contextlib.contextmanager
def _numpy_global_seed(seed: int) -> Iterator[None]:
    saved = np.random.get_state()  # noqa: NPY002  # the generator that clean-fid uses
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(saved)  # noqa: NPY002


def _check_features(features: FloatArray) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have the shape {features.shape}; (N, D) with N >= 2 is needed")


def check_pair(generated: FloatArray, reference: FloatArray) -> None:
    """Raise ValueError unless both are (N, D) with N >= 2 and one D."""
    _check_features(generated)
    _check_features(reference)
    if generated.shape[1] != reference.shape[1]:
        raise ValueError(
            f"the feature sets have {generated.shape[1]} and {reference.shape[1]} dimensions; "
            "they must agree"
        )
