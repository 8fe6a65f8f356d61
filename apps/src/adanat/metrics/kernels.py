"""KID of clean-fid's random subsets, from the inner products of all pairs of vectors.

Whoever looks at all pairs anyway, as precision and recall do, has the products that KID's kernel is
made of: what a subset adds up is then a sum over pairs, weighted by who belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelSubsets:
    """The subsets over which KID is averaged.

    Attributes:
        generated: float32 (N, S), 1 where a generated vector belongs to a subset, else 0.
        reference: float32 (M, S), the same of the real ones.
        size: Vectors of each side in a subset.
    """

    generated: Tensor
    reference: Tensor
    size: int

    @classmethod
    def draw(
        cls,
        num_generated: int,
        num_reference: int,
        *,
        seed: int,
        num_subsets: int = 100,
        max_subset_size: int = 1000,
    ) -> KernelSubsets:
        """Those that `kernel_distance` lets clean-fid draw from the same seed."""
        stream = np.random.RandomState(seed)  # what numpy's global generator is
        size = min(num_generated, num_reference, max_subset_size)
        generated, reference = (torch.zeros(n, num_subsets) for n in (num_generated, num_reference))
        for subset in range(num_subsets):
            for side in (generated, reference):
                side[stream.choice(len(side), size, replace=False), subset] = 1
        return cls(generated=generated, reference=reference, size=size)

    def distance(self, generated: Tensor, reference: Tensor, across: Tensor) -> float:
        """KID, from the sums (S,) of the kernel over each subset's pairs.

        Args:
            generated: Over ordered pairs of different generated vectors.
            reference: The same of the real ones.
            across: Over pairs of a generated and a real vector.
        """
        within = (generated + reference) / (self.size * (self.size - 1))
        return (within - 2 * across / self.size**2).mean().item()


def kernel_sums(products: Tensor, dim: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Sums of KID's cubic kernel (arXiv 1801.01401) over a block of pairs, subset by subset.

    Args:
        products: Inner products (r, c) of vectors.
        dim: Dimension of the vectors.
        rows: float32 (r, S), who of the rows belongs to which subset.
        columns: float32 (c, S), the same of the columns.

    Returns:
        float64 (S,).
    """
    kernel = (products / dim).add_(1).pow_(3)
    return (rows * (kernel @ columns)).sum(dim=0, dtype=torch.float64)
