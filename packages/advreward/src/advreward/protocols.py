"""What this package asks of others. A leaf: it imports nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class Engine(Protocol):
    """How an update is run: in which precision, and how gradients are made."""

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context in which the forward pass runs."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a scalar loss (and sums or averages them over processes)."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenates a tensor over the processes: (n, ...) -> (processes * n, ...)."""
        ...


class FeatureExtractor(Protocol):
    """Frozen features of images; those of an image must depend on that image alone."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Maps images (B, 3, H, W) in [0, 1] to named feature maps (B, C, h, w)."""
        ...


class PooledFeatures(Protocol):
    """One frozen feature vector of each image, which must depend on that image alone."""

    def __call__(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) in [0, 1] to vectors (B, D)."""
        ...


class ImageScorer(Protocol):
    """A fixed judgement of images under their conditions."""

    def __call__(self, images: Tensor, conditions: Tensor) -> Tensor:
        """Scores images (B, 3, H, W) in [0, 1] under conditions with B rows: (B,)."""
        ...


class RewardModel(Protocol):
    """A design of reward: what all of this package's rewards are, and what a mixture is made of."""

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Pays an outcome (``"images"`` and the conditions, B rows each): (B,)."""
        ...
