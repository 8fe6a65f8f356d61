"""Precision, recall, density and coverage: which vectors lie inside the other set's balls.

A ball is drawn around every vector, through one of its nearest neighbours in its own set. KID may
come along: it is made of the same inner products of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adanat.metrics.distances import check_pair
from adanat.metrics.features import FloatArray
from adanat.metrics.kernels import KernelSubsets, kernel_sums

BoolArray = npt.NDArray[np.bool_]
_ROWS = 1000  # on either side of the pairs that are looked at together


class _Block(NamedTuple):
    """Some of the pairs of two sets."""

    rows: slice
    columns: slice
    products: Tensor
    """Inner products (r, c)."""
    distances: Tensor
    """(r, c)."""


def _blocks(first: Tensor, second: Tensor, size: int) -> Iterator[_Block]:
    """All pairs of (N, D) and (M, D), `size` by `size` at a time, which a cache can hold.

    Within one set, given twice, blocks below the diagonal are left out: they mirror those above.
    """
    first_squares, second_squares = (side.square().sum(dim=1) for side in (first, second))
    for top in range(0, len(first), size):
        rows = slice(top, top + size)
        for left in range(top if first is second else 0, len(second), size):
            columns = slice(left, left + size)
            products = first[rows] @ second[columns].T
            squares = (-2 * products).add_(first_squares[rows, None]).add_(second_squares[columns])
            yield _Block(rows, columns, products, squares.clamp_(min=0).sqrt_())


class OwnPairs(NamedTuple):
    """What the pairs within one set of vectors say."""

    distances: FloatArray
    """(N, count), rising: each vector's to itself, then to its neighbours."""
    kernel_sums: Tensor
    """float64 (S,), KID's kernel over the ordered pairs of different vectors of each subset."""

    def radii(self, neighborhood: int) -> Tensor:
        """Distance (N,) of each vector to its `neighborhood`-th neighbour."""
        return torch.from_numpy(self.distances[:, neighborhood])


def own_pairs(
    features: FloatArray, *, count: int, members: Tensor | None = None, batch_size: int = _ROWS
) -> OwnPairs:
    """Look at every pair within a set once.

    Args:
        features: (N, D).
        count: How many distances of each vector are kept.
        members: float32 (N, S), which vectors belong to each of KID's subsets; None for no subset.
        batch_size: Vectors on either side of a block of pairs.

    Raises:
        ValueError: If `count` is not in 1..N.
    """
    _check_count(count, len(features))
    vectors = torch.from_numpy(features)
    members = torch.zeros(len(vectors), 0) if members is None else members
    nearest = torch.full((len(vectors), count), torch.inf)
    sums = torch.zeros(members.shape[1], dtype=torch.float64)
    for rows, columns, products, distances in _blocks(vectors, vectors, batch_size):
        nearest[rows] = _smallest(nearest[rows], distances)
        if rows == columns:
            products.fill_diagonal_(-vectors.shape[1])  # makes the kernel 0 there
            sums += kernel_sums(products, vectors.shape[1], members[rows], members[columns])
        else:
            nearest[columns] = _smallest(nearest[columns], distances.T)
            sums += 2 * kernel_sums(products, vectors.shape[1], members[rows], members[columns])
    return OwnPairs(nearest.numpy(), sums)


def _smallest(known: Tensor, more: Tensor) -> Tensor:
    """The smallest numbers of each row of both, as many as were known, rising."""
    count = known.shape[1]
    found = torch.cat([known, more.topk(min(count, more.shape[1]), largest=False).values], dim=1)
    return found.topk(count, largest=False).values


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


def compare_pairs(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 3,
    batch_size: int = _ROWS,
    subsets: KernelSubsets | None = None,
    reference_pairs: OwnPairs | None = None,
) -> tuple[Membership, float]:
    """Improved precision and recall (arXiv 1904.06991) per image, and KID, of the same products.

    They are those of torch-fidelity, which measures the reference set against itself in every call
    and the two sets against each other twice, and of clean-fid, which multiplies its subsets anew.

    Args:
        generated: (N, D) features.
        reference: (M, D) features. All values depend on N and M; keep them equal and fixed.
        neighborhood: Which nearest neighbour sets a vector's radius.
        batch_size: Vectors on either side of a block of pairs.
        subsets: KID's; None for none.
        reference_pairs: `own_pairs` of the reference, when known: with its members of the subsets,
            and more than `neighborhood` distances.

    Returns:
        Who lies in whose ball; KID, which is NaN without subsets.

    Raises:
        ValueError: If the sets differ in dimension or one has `neighborhood` vectors or fewer.
    """
    _check(generated, reference, neighborhood)
    if subsets is None:
        subsets = KernelSubsets.draw(len(generated), len(reference), seed=0, num_subsets=0)
    count = neighborhood + 1
    own = own_pairs(generated, count=count, members=subsets.generated, batch_size=batch_size)
    if reference_pairs is None:
        reference_pairs = own_pairs(
            reference, count=count, members=subsets.reference, batch_size=batch_size
        )
    fake, real = torch.from_numpy(generated), torch.from_numpy(reference)
    fake_radii, real_radii = own.radii(neighborhood), reference_pairs.radii(neighborhood)
    precise, recalled = (torch.zeros(len(side), dtype=torch.bool) for side in (fake, real))
    sums = torch.zeros_like(own.kernel_sums)
    for rows, columns, products, distances in _blocks(fake, real, batch_size):
        # The smallest difference says whether any is inside, several times faster than `any`.
        precise[rows] |= (distances - real_radii[columns]).amin(dim=1) <= 0
        recalled[columns] |= (distances - fake_radii[rows, None]).amin(dim=0) <= 0
        sums += kernel_sums(
            products, fake.shape[1], subsets.generated[rows], subsets.reference[columns]
        )
    found = Membership(precise=precise.numpy(), recalled=recalled.numpy())
    return found, subsets.distance(own.kernel_sums, reference_pairs.kernel_sums, sums)


def precision_recall(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 3,
    batch_size: int = _ROWS,
    reference_pairs: OwnPairs | None = None,
) -> tuple[float, float]:
    """Improved precision and recall, each in [0, 1]; arguments and errors as `compare_pairs`."""
    found, _ = compare_pairs(
        generated,
        reference,
        neighborhood=neighborhood,
        batch_size=batch_size,
        reference_pairs=reference_pairs,
    )
    return found.precision, found.recall


def density_coverage(
    generated: FloatArray,
    reference: FloatArray,
    *,
    neighborhood: int = 5,
    batch_size: int = _ROWS,
    reference_pairs: OwnPairs | None = None,
) -> tuple[float, float]:
    """Density and coverage (arXiv 2002.09797, eq. 3 and 4).

    Args:
        generated: (N, D) features.
        reference: (M, D) features.
        neighborhood: Which nearest neighbour sets a real vector's radius; the paper's is 5.
        batch_size: Vectors on either side of a block of pairs.
        reference_pairs: `own_pairs` of the reference, when known, with more than `neighborhood`
            distances.

    Returns:
        density (mean number of real balls around a generated vector over `neighborhood`; it may
        pass 1) and coverage (share of real balls with a generated vector inside, in [0, 1]).

    Raises:
        ValueError: If the sets differ in dimension or one has `neighborhood` vectors or fewer.
    """
    _check(generated, reference, neighborhood)
    if reference_pairs is None:
        reference_pairs = own_pairs(reference, count=neighborhood + 1, batch_size=batch_size)
    radii = reference_pairs.radii(neighborhood)
    real, fake = torch.from_numpy(reference), torch.from_numpy(generated)
    hits = 0
    covered = torch.zeros(len(real), dtype=torch.bool)
    for block in _blocks(fake, real, batch_size):
        hits += int((block.distances <= radii[block.columns]).sum())
        covered[block.columns] |= block.distances.amin(dim=0) <= radii[block.columns]
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
