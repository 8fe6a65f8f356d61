"""Several rewards at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from advreward.protocols import RewardModel


class MixtureReward:
    """A weighted sum of rewards.

    Args:
        rewards: by name; any reward models.
        weights: of the same names; negative ones punish.
        standardize: bring each reward to mean 0 and deviation 1 over the batch of the call first,
            so that weights compare spreads, whatever the units. A reward then depends on the batch;
            a constant one counts as 0.

    Raises:
        ValueError: if the names differ, there are none, or a weight is not finite.
    """

    def __init__(
        self,
        rewards: Mapping[str, RewardModel],
        weights: Mapping[str, float],
        *,
        standardize: bool = False,
    ) -> None:
        if not rewards or rewards.keys() != weights.keys():
            raise ValueError(
                "give every reward one weight: the rewards are "
                f"{sorted(rewards)}, the weights {sorted(weights)}"
            )
        wrong = {name: weight for name, weight in weights.items() if not math.isfinite(weight)}
        if wrong:
            raise ValueError(f"weights must be finite, got {wrong}")
        self._rewards = dict(rewards)
        self._weights = dict(weights)
        self._standardize = standardize

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sums (B,)."""
        return self.combine(self.parts(outcome))

    def parts(self, outcome: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what each reward pays by itself, (B,) by name, without weight."""
        return {name: reward(outcome) for name, reward in self._rewards.items()}

    def combine(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sums (B,) of `parts`."""
        terms = []
        for name, weight in self._weights.items():
            part = parts[name]
            if self._standardize:
                deviation, mean = torch.std_mean(part, correction=0)
                # Rounding must not be blown up to a reward.
                negligible = 1e-6 * mean.abs() + torch.finfo(part.dtype).tiny
                part = (part - mean) / deviation.where(deviation > negligible, torch.inf)
            terms.append(weight * part)
        return torch.stack(terms).sum(dim=0)
