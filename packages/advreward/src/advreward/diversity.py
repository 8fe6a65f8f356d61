"""How unlike its neighbours in the batch an image is: the other end of fidelity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advreward.embedding import embed
from advreward.protocols import PooledFeatures


def novelty(features: Tensor, groups: Tensor | None = None, *, neighbour: int = 3) -> Tensor:
    """Logarithm of the distance to the ``neighbour``-th nearest vector of the batch.

    Up to a constant and a factor (the dimension of the data) it estimates -log p of the
    distribution that the batch was drawn from, at each vector; its mean estimates the entropy
    (Kozachenko and Leonenko, 1987).

    Args:
        features: (N, D).
        groups: (N,) int64; only vectors of the same group are neighbours, so that a class is not
            novel for being rare. A group with fewer vectors offers its furthest; a vector alone in
            its group gets the mean of the others. None for one group.
        neighbour: which neighbour, at least 1.

    Returns:
        (N,) float32, finite also for vectors that occur several times.
    """
    if neighbour < 1:
        raise ValueError(f"neighbour must be at least 1, got {neighbour}")
    distances = torch.cdist(features.float(), features.float())
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    if groups is not None:
        others &= groups[:, None] == groups[None, :]
    distances = distances.masked_fill(~others, torch.inf)
    ranked = distances.topk(min(neighbour, len(features)), dim=1, largest=False).values
    counts = others.sum(dim=1)
    rank = counts.clamp(1, neighbour) - 1
    radii = ranked.gather(1, rank[:, None])[:, 0]
    known = counts > 0
    # A copy has no distance: a thousandth of the usual one stands for it.
    usual = radii[known].median() if known.any() else radii.new_ones(())
    logs = radii.clamp_min(1e-3 * usual.clamp_min(torch.finfo(radii.dtype).tiny)).log()
    mean = logs[known].mean() if known.any() else radii.new_zeros(())
    return torch.where(known, logs, mean)


class DiversityReward:
    """Pays images for being unlike others of the batch (`novelty`): one part of a mixture.

    A discriminator's logit approaches log p_real - log p_generated. Mixed with a weight w of an
    estimate of -log p_generated, the best policy samples from p_real^(1 / (1 + w)) instead of
    p_real: above 0 the target is flatter and recall is worth more, below 0 (above -1) it is sharper
    and fidelity is. So one number moves along the precision-recall curve, which AdaGen
    (arXiv 2603.06993) asks of its trade-off, too; how AdaGen does it could not be read in public
    code, and this is not it. On its own this reward asks for noise.

    Args:
        pooled: frozen features, such as `FrozenFeatures.pooled`.
        group_name: name of the labels (B,) in an outcome within which images are compared; None to
            compare all.
        neighbour: see `novelty`.
        batch_size: images a pass through ``pooled``.
    """

    def __init__(
        self,
        pooled: PooledFeatures,
        *,
        group_name: str | None = "labels",
        neighbour: int = 3,
        batch_size: int = 256,
    ) -> None:
        if neighbour < 1:
            raise ValueError(f"neighbour must be at least 1, got {neighbour}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._pooled = pooled
        self._group_name = group_name
        self._neighbour = neighbour
        self._batch_size = batch_size

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the rewards (B,) float32 of ``outcome["images"]`` (B, 3, H, W)."""
        features = embed(self._pooled, outcome["images"], self._batch_size)
        groups = None if self._group_name is None else outcome[self._group_name]
        return novelty(features, groups, neighbour=self._neighbour)
