"""What a run's transformer and discriminator are conditioned on: classes, or captions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from natgen import NAT
from natgen.conditioning import TextCondition
from torch import Tensor

from adanat.generation import balanced_labels
from adanat.text.features import CaptionFeatures

PROMPT_NUMBERS = "prompts"
"""Name in outcomes of their conditions' numbers, by which rewards find prompts."""


class Condition(NamedTuple):
    """The condition of B images, for each side."""

    generator: Tensor
    """What the transformer sees: labels (B,) int64, or text features (B, N, C)."""
    judge: Tensor
    """What the discriminator sees: the same labels, or pooled text features (B, P)."""


class ConditionSizes(NamedTuple):
    """The arguments by which networks are told what their condition is."""

    num_classes: int | None = None
    context_dim: int | None = None
    num_context_tokens: int = 1
    pooled_dim: int | None = None


class RunConditions(Protocol):
    """The conditions of one split of a run."""

    @property
    def sizes(self) -> ConditionSizes:
        """Sizes for the networks."""

    @property
    def plan(self) -> str:
        """Which condition sample i has, in a few words."""

    def numbers(self, indices: Tensor) -> Tensor:
        """Numbers (B,) int64 of the conditions of samples `indices` (B,): equal where they are."""

    def of_samples(self, indices: Tensor) -> Condition:
        """Conditions of the samples `indices` (B,) that are to be drawn."""

    def of_items(self, items: Mapping[str, Tensor]) -> Condition:
        """Conditions of images, by their `labels` (B,) and numbers within the split (`images`)."""

    def complete(self, nat: NAT) -> None:
        """Tell a new transformer what stands for "no condition", where it cannot know."""


@dataclass(frozen=True)
class ClassConditions:
    """Labels; sample i has class i mod `num_classes`."""

    num_classes: int
    plan: str = "balanced labels"

    @property
    def sizes(self) -> ConditionSizes:
        """See `RunConditions`."""
        return ConditionSizes(num_classes=self.num_classes)

    def numbers(self, indices: Tensor) -> Tensor:
        """See `RunConditions`: the labels."""
        return balanced_labels(indices, self.num_classes)

    def of_samples(self, indices: Tensor) -> Condition:
        """See `RunConditions`."""
        labels = self.numbers(indices)
        return Condition(labels, labels)

    def of_items(self, items: Mapping[str, Tensor]) -> Condition:
        """See `RunConditions`."""
        return Condition(items["labels"], items["labels"])

    def complete(self, nat: NAT) -> None:
        """See `RunConditions`: the null class is learned."""


@dataclass(frozen=True)
class CaptionConditions:
    """Captions of a split's images; sample i has caption i, beginning anew after the last one.

    Args:
        captions: features of the captions, and behind them those of the empty caption.
        plan: whose captions they are.
    """

    captions: CaptionFeatures
    plan: str

    @property
    def sizes(self) -> ConditionSizes:
        """See `RunConditions`."""
        tokens, pooled = self.captions.batch(torch.tensor([len(self)]))
        return ConditionSizes(
            context_dim=tokens.shape[2],
            num_context_tokens=tokens.shape[1],
            pooled_dim=pooled.shape[1],
        )

    def __len__(self) -> int:
        return len(self.captions) - 1

    def numbers(self, indices: Tensor) -> Tensor:
        """See `RunConditions`: the captions' numbers."""
        return indices % len(self)

    def of_samples(self, indices: Tensor) -> Condition:
        """See `RunConditions`."""
        return Condition(*self.captions.batch(self.numbers(indices)))

    def of_items(self, items: Mapping[str, Tensor]) -> Condition:
        """See `RunConditions`."""
        return Condition(*self.captions.batch(items["images"]))

    def complete(self, nat: NAT) -> None:
        """See `RunConditions`: the features of the empty caption stand for "no text"."""
        if isinstance(nat.condition, TextCondition):
            empty, _ = self.captions.batch(torch.tensor([len(self)]))
            nat.condition.null_context.copy_(empty[0])


class ConditionedReward:
    """A reward whose outcomes also hold, as `condition`, what the judge is conditioned on.

    Beside it, as `PROMPT_NUMBERS`, stand the conditions' numbers.

    Args:
        reward: pays outcomes.
        conditions: of the samples, which an outcome names as its `episodes`.
    """

    def __init__(
        self, reward: Callable[[Mapping[str, Tensor]], Tensor], conditions: RunConditions
    ) -> None:
        self._reward = reward
        self._conditions = conditions

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Reward (B,) of an outcome."""
        episodes = outcome["episodes"]
        added = {
            "condition": self._conditions.of_samples(episodes).judge,
            PROMPT_NUMBERS: self._conditions.numbers(episodes),
        }
        return self._reward({**outcome, **added})
