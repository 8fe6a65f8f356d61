"""The adversarial reward in a run: what its discriminator learns from, and when."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from advreward import AdversarialReward
from torch import Tensor

from adanat.recipes.base import RewardRecipe

Features = Mapping[str, Tensor]


class Embedded(NamedTuple):
    """Frozen features of images, with their conditions."""

    features: Features
    conditions: Tensor
    """As many rows as the features."""

    def take(self, indices: Tensor | slice) -> "Embedded":
        """The rows at `indices`."""
        features = {name: values[indices] for name, values in self.features.items()}
        return Embedded(features, self.conditions[indices])


class Adversary:
    """Pays pictures by a discriminator, and trains it on the pictures that it has paid.

    The features of the batches paid since the last `learn` are kept, so that each picture is
    embedded once; with augmentation a second time, changed.

    Args:
        reward: the discriminator and how it pays.
        real: what is real.
        heldout: real images that the discriminator never learns from.
        recipe: batch size of its updates.
        seed: of the draws of its batches, the same in all processes.
        rows: which rows of a batch are this process's.
    """

    def __init__(
        self,
        reward: AdversarialReward,
        real: Embedded,
        heldout: Embedded,
        recipe: RewardRecipe,
        seed: int,
        rows: slice = slice(None),
    ) -> None:
        self.reward = reward
        self._real = real
        self._heldout = heldout
        self._batch_size = recipe.batch_size
        self._rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._fakes: list[Embedded] = []

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Reward (B,) of `images` (B, 3, H, W) under their conditions."""
        images, conditions = outcome["images"], outcome[self.reward.condition_name]
        features = self.reward.extract(images)
        learned = (
            features if self.reward.augmenter is None else self.reward.extract_augmented(images)
        )
        self._fakes.append(Embedded(learned, conditions))
        return self.reward.score(features, conditions)

    def learn(self, updates: int) -> dict[str, float]:
        """Update the discriminator on what it has paid since the last call, then forget that.

        Returns:
            Means over the updates, and how the real images that it learns from fare better than
            those held out.
        """
        if not self._fakes:
            raise RuntimeError("no batch has been paid since the last call: collect a rollout")
        fake = concatenate(self._fakes)
        self._fakes.clear()
        sums: dict[str, float] = {}
        for _ in range(updates):
            real, chosen = (self._draw(side).take(self._rows) for side in (self._real, fake))
            metrics = self.reward.update(*real, *chosen)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value / updates
        seen = self._real.take(torch.arange(min(len(self._real.conditions), self._num_heldout)))
        return sums | self.reward.overfitting(*seen, *self._heldout)

    def state_dict(self) -> dict[str, Any]:
        return {
            "adversary": self.reward.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reward.load_state_dict(state["adversary"])
        self._generator.set_state(state["generator"])

    @property
    def _num_heldout(self) -> int:
        return len(self._heldout.conditions)

    def _draw(self, side: Embedded) -> Embedded:
        count = len(side.conditions)
        indices = torch.randint(count, (self._batch_size,), generator=self._generator)
        return side.take(indices.to(side.conditions.device))


def concatenate(parts: Iterable[Embedded]) -> Embedded:
    """All rows of several parts, in order."""
    gathered: dict[str, list[Tensor]] = {}
    conditions: list[Tensor] = []
    for part in parts:
        conditions.append(part.conditions)
        for name, values in part.features.items():
            gathered.setdefault(name, []).append(values)
    features = {name: torch.cat(values) for name, values in gathered.items()}
    return Embedded(features, torch.cat(conditions))
