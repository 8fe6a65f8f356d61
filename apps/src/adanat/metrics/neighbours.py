"""Precision, recall, density and coverage: which vectors lie inside the other set's balls.

A ball is drawn around every vector, through one of its nearest neighbours in its own set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adanat.metrics.distances import check_pair
from adanat.metrics.features import FloatArray

BoolArray = npt.NDArray[np.bool_]
_ROWS = 1000  # of a distance matrix, held at once


def neighbour_radii(
    features: FloatArray, *, neighborhood: int = 3, batch_size: int = _ROWS
) -> FloatArray:
    """Distance of every vector of (N, D) to its `neighborhood`-th neighbour in the set: (N,).

    Raises:
        ValueError: If there are not more than `neighborhood` vectors.
    """
    found = neighbour_distances(features, count=neighborhood + 1, batch_size=batch_size)
    return found[:, neighborhood]


def neighbour_distances(features: FloatArray, *, count: int, batch_size: int = _ROWS) -> FloatArray:
    """Distances (N, count) within a set (N, D), rising: each vector's to itself, then to others.

    Every pair is measured once, which halves the work.

    Raises:
        ValueError: If `count` is not in 1..N.
    """
    _check_count(count, len(features))
    blocks = torch.from_numpy(features).split(batch_size)
    nearest = [torch.empty(len(block), 0) for block in blocks]
    for i, rows in enumerate(blocks):
        for j in range(i, len(blocks)):
            distances = torch.cdist(rows, blocks[j])
            nearest[i] = _smallest(nearest[i], distances, count)
            if j > i:
                nearest[j] = _smallest(nearest[j], distances.T, count)
    return np.asarray(torch.cat(nearest).numpy(), dtype=np.float32)


def _smallest(known: Tensor, more: Tensor, count: int) -> Tensor:
    """The `count` smallest numbers of each row of both, rising."""
    found = torch.cat([known, more.topk(min(count, more.shape[1]), largest=False).values], dim=1)
    return found.topk(min(count, found.shape[1]), largest=False).values


@dataclass(frozen=True, eq=False, kw_only=True)
class Membership:
    """Who lies in whose ball, image by image, so that means can be resampled.

    Attributes:
        precise: bool (N,), generated vectors inside some ball of the reference.
        recalled: bool (M,), reference vectors inside some ball of the generated set.
    """

    precise: BoolArray
    recalled: BoolArray

    @property
    def precision(self) -> float:
        """Share of generated vectors that look real."""
        return float(self.precise.mean())

    @property
    def recall(self) -> float:
        """Share of real vectors that the generated set reaches."""
        return float(self.recalled.mean())


def membership(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 3,
    batch_size: int = _ROWS,
    reference_radii: FloatArray | None = None,
) -> Membership:
    """Improved precision and recall (arXiv 1904.06991) per image, as torch-fidelity defines them.

    torch-fidelity's own function measures the reference set against itself in every call and the
    two sets against each other twice; one pass serves both here, and the radii can be handed in.

    Args:
        generated: (N, D) features.
        reference: (M, D) features. Both values depend on N and M; keep them equal and fixed.
        neighborhood: Which nearest neighbour sets a vector's radius.
        batch_size: Rows of the distance matrix in memory at once.
        reference_radii: `neighbour_radii` of the reference, when known.

    Raises:
        ValueError: If the sets differ in dimension or one has `neighborhood` vectors or fewer.
    """
    _check(generated, reference, neighborhood)
    if reference_radii is None:
        reference_radii = neighbour_radii(
            reference, neighborhood=neighborhood, batch_size=batch_size
        )
    fake_radii = torch.from_numpy(
        neighbour_radii(generated, neighborhood=neighborhood, batch_size=batch_size)
    )
    real, fake = torch.from_numpy(reference), torch.from_numpy(generated)
    real_radii = torch.from_numpy(reference_radii)
    precise: list[Tensor] = []
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for rows, radii in zip(fake.split(batch_size), fake_radii.split(batch_size), strict=True):
        distances = torch.cdist(rows, real)
        # The smallest difference says whether any is inside, several times faster than `any`.
        precise.append((distances - real_radii).amin(dim=1) <= 0)
        recalled |= (distances - radii[:, None]).amin(dim=0) <= 0
    return Membership(precise=torch.cat(precise).numpy(), recalled=recalled.numpy())


def precision_recall(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 3,
    batch_size: int = _ROWS,
    reference_radii: FloatArray | None = None,
) -> tuple[float, float]:
    """Improved precision and recall, each in [0, 1]; arguments and errors as `membership`."""
    found = membership(
        generated,
        reference,
        neighborhood=neighborhood,
        batch_size=batch_size,
        reference_radii=reference_radii,
    )
    return found.precision, found.recall


def density_coverage(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 5,
    batch_size: int = _ROWS,
    reference_radii: FloatArray | None = None,
) -> tuple[float, float]:
    """Density and coverage (arXiv 2002.09797, eq. 3 and 4).

    Args:
        generated: (N, D) features.
        reference: (M, D) features.
        neighborhood: Which nearest neighbour sets a real vector's radius; the paper's is 5.
        batch_size: Rows of the distance matrix in memory at once.
        reference_radii: `neighbour_radii` of the reference, when known.

    Returns:
        density (mean number of real balls around a generated vector over `neighborhood`; it may
        pass 1) and coverage (share of real balls with a generated vector inside, in [0, 1]).

    Raises:
        ValueError: If the sets differ in dimension or one has `neighborhood` vectors or fewer.
    """
    _check(generated, reference, neighborhood)
    if reference_radii is None:
        reference_radii = neighbour_radii(
            reference, neighborhood=neighborhood, batch_size=batch_size
        )
    radii = torch.from_numpy(reference_radii)
    real, fake = torch.from_numpy(reference), torch.from_numpy(generated)
    hits = 0
    covered = torch.zeros(len(real), dtype=torch.bool)
    for rows in fake.split(batch_size):
        inside = torch.cdist(rows, real) <= radii
        hits += int(inside.sum())
        covered |= inside.any(dim=0)
    return hits / (neighborhood * len(fake)), covered.double().mean().item()


def nearest_neighbours(
    queries: FloatArray, vectors: FloatArray, *, count: int, batch_size: int = _ROWS
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The nearest of (M, D) vectors to each of (N, D) queries.

    Returns:
        Distances and indices, each (N, count), the nearest first.

    Raises:
        ValueError: If `count` is not in 1..M.
    """
    _check_count(count, len(vectors))
    found = [
        torch.cdist(rows, torch.from_numpy(vectors)).topk(count, largest=False)
        for rows in torch.from_numpy(queries).split(batch_size)
    ]
    distances = torch.cat([part.values for part in found])
    return distances.numpy(), torch.cat([part.indices for part in found]).numpy()


def _check(generated: FloatArray, reference: FloatArray, neighborhood: int) -> None:
    check_pair(generated, reference)
    smallest = min(len(generated), len(reference))
    if not 1 <= neighborhood < smallest:
        raise ValueError(
            f"neighborhood is {neighborhood}; it must be at least 1 and below the {smallest} "
            "vectors of the smaller set"
        )


def _check_count(count: int, num_vectors: int) -> None:
    if not 1 <= count <= num_vectors:
        raise ValueError(f"count is {count}; {num_vectors} vectors allow 1 to {num_vectors}")
