"""What this package asks of others."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class Engine(Protocol):
    """How a trainer runs: precision and backward pass."""

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a scalar loss."""
        ...


class PerceptualFeatures(Protocol):
    """Frozen features in which two images are compared, such as `advreward`'s backbones."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Named feature maps (B, C_k, h_k, w_k) of images (B, 3, H, W) in [0, 1].

        Must be differentiable with respect to the images.
        """
        ...
