"""The Frechet distance of a batch as a reward, credited to its samples.

One of the two simple designs that the paper compares with the adversarial reward (sec. 3.3) and
finds to be gamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from advreward.embedding import embed
from advreward.protocols import PooledFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianStatistics:
    """Mean and covariance of feature vectors, in float64.

    Attributes:
        mean: (D,).
        covariance: (D, D), of the population (divisor N), so that a sample's removal is a change of
            weights and nothing else.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """Returns the statistics of vectors (N, D).

        Raises:
            ValueError: if there are fewer than two vectors, or some that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"features must be (N, D) with N >= 2 to have a covariance, "
                f"got {tuple(features.shape)}"
            )
        features = features.double()
        if not features.isfinite().all():
            raise ValueError("features must be finite; look for images that are not")
        mean = features.mean(dim=0)
        centred = features - mean
        return cls(mean=mean, covariance=centred.T @ centred / len(features))

    def project(self, axes: Tensor) -> GaussianStatistics:
        """Returns the statistics along the columns of ``axes`` (D, K)."""
        axes = axes.to(self.mean)
        return GaussianStatistics(mean=self.mean @ axes, covariance=axes.T @ self.covariance @ axes)

    def principal_axes(self, count: int) -> Tensor:
        """Returns the ``count`` directions of largest variance, orthonormal columns (D, count)."""
        if not 1 <= count <= len(self.mean):
            raise ValueError(f"count must be in [1, {len(self.mean)}], got {count}")
        _, vectors = _eigh(self.covariance)
        largest: Tensor = vectors.flip(1)[:, :count]
        return largest


def frechet_credit(features: Tensor, reference: GaussianStatistics) -> tuple[Tensor, Tensor]:
    """Frechet distance of a batch, and what each of its vectors does to it.

    The credit of a vector is its influence: the derivative of the distance when weight moves from
    the whole batch to that vector, with a minus. With mu, Sigma of the batch, m, S of the reference
    and T = S^1/2 (S^1/2 Sigma S^1/2)^-1/2 S^1/2 (the optimal map between the two Gaussians),

        credit(x) = -[2 (mu - m)' d + d' (I - T) d - tr((I - T) Sigma)],   d = x - mu.

    It is the first order of leaving the vector out: (N - 1) (distance without x - distance) differs
    from it by O(1/N), for one eigendecomposition a batch instead of one a sample. Credits sum to 0.

    Args:
        features: (N, D), N well above D: otherwise the covariance is singular, the distance is
            mostly bias, and credit is measured within the span of the batch.
        reference: statistics of the real vectors.

    Returns:
        The squared distance, a scalar, and the credits (N,), above 0 for vectors without which the
        distance were larger; float64.
    """
    batch = GaussianStatistics.of(features)
    difference = batch.mean - reference.mean
    root = _matrix_power(reference.covariance, 0.5)
    product = root @ batch.covariance @ root
    overlap = torch.linalg.eigvalsh(product).clamp_min(0.0).sqrt().sum()
    distance = (
        difference.square().sum()
        + batch.covariance.trace()
        + reference.covariance.trace()
        - 2.0 * overlap
    )
    slope = torch.eye(len(root)).to(root) - root @ _matrix_power(product, -0.5) @ root
    centred = features.double() - batch.mean
    linear = 2.0 * centred @ difference
    quadratic = torch.einsum("nd,de,ne->n", centred, slope, centred)
    return distance, -(linear + quadratic - (slope * batch.covariance).sum())


class FrechetReward:
    """Pays each image of a batch its share of the batch's distance to real images.

    An image's reward is its credit (see `frechet_credit`) minus the distance, so that the mean
    reward of a batch is minus its Frechet distance. It depends on the whole batch by nature, and
    ignores conditions: it cannot tell a good image of the wrong class.

    Args:
        pooled: frozen features, such as `FrozenFeatures.pooled`. Judge by other ones.
        reference: statistics of real images under ``pooled``, see `frechet_reference`.
        num_components: measure along so many principal components of the reference; batches of a
            few hundred carry a few dozen. None for all dimensions.
        batch_size: images a pass through ``pooled``.
    """

    def __init__(
        self,
        pooled: PooledFeatures,
        reference: GaussianStatistics,
        *,
        num_components: int | None = 64,
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._pooled = pooled
        self._batch_size = batch_size
        self._axes: Tensor | None = None
        if num_components is not None:
            self._axes = reference.principal_axes(num_components)
            reference = reference.project(self._axes)
        self._reference = reference

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the rewards (B,) float32 of ``outcome["images"]`` (B, 3, H, W), B >= 2."""
        features = embed(self._pooled, outcome["images"], self._batch_size)
        features = features.to(self._reference.mean)
        if self._axes is not None:
            features = features @ self._axes
        distance, credit = frechet_credit(features, self._reference)
        return (credit - distance).float().to(outcome["images"].device)


def frechet_reference(
    pooled: PooledFeatures, images: Tensor, *, batch_size: int = 256
) -> GaussianStatistics:
    """Returns the statistics of real images (N, 3, H, W) in [0, 1] under ``pooled``."""
    return GaussianStatistics.of(embed(pooled, images, batch_size))


def _matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive matrix, of its pseudo-inverse where the power is negative."""
    values, vectors = _eigh(matrix)
    floor = values[-1].clamp_min(0.0) * len(values) * torch.finfo(values.dtype).eps
    powers = torch.where(values > floor, values.clamp_min(floor), 1.0).pow(exponent)
    result: Tensor = (vectors * powers.where(values > floor, 0.0)) @ vectors.T
    return result


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of a symmetric matrix, however rank-deficient.

    On the CPU by NumPy: PyTorch's routine (of MKL, on several threads) fails to converge for
    covariances of fewer vectors than dimensions.
    """
    if matrix.device.type != "cpu":
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    found = np.linalg.eigh(matrix.numpy())
    return torch.from_numpy(found.eigenvalues), torch.from_numpy(found.eigenvectors)
