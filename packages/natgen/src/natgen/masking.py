"""Which tokens are masked in training: AutoNAT's Beta mask ratios, MaskGIT's cosine ones."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CosineMask:
    """Mask ratio cos(pi u / 2), u uniform: MaskGIT's, matched to its cosine decoding."""

    def sample(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Mask ratios (batch_size,) in [0, 1], on the generator's device."""
        u = torch.rand(batch_size, generator=generator, device=generator.device)
        return torch.cos(u * (math.pi / 2))


@dataclass(frozen=True, kw_only=True)
class BetaMask:
    """Mask ratio from Beta(alpha, beta); the default is AutoNAT's, of mean 0.8."""

    alpha: float = 12.0
    beta: float = 3.0

    def __post_init__(self) -> None:
        if self.alpha <= 0 or self.beta <= 0:
            raise ValueError(f"alpha and beta must be above 0, got {self.alpha} and {self.beta}")

    def sample(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Mask ratios (batch_size,) in [0, 1], on the generator's device."""
        # torch.distributions.Beta takes no generator; its own building block does.
        shape = torch.tensor([[self.alpha], [self.beta]], device=generator.device)
        a, b = torch._standard_gamma(shape.expand(2, batch_size), generator=generator).unbind()
        return a / (a + b)


MaskDistribution = CosineMask | BetaMask


def random_mask(
    mask_ratio: Tensor,
    length: int,
    generator: torch.Generator,
    device: torch.device | str | None = None,
) -> Tensor:
    """Masks with max(1, ceil(mask_ratio * length)) tokens each, uniformly placed.

    Args:
        mask_ratio: (B,) in [0, 1], on the generator's device.
        length: number of tokens L.
        generator: source of the placement; the masks are the same on every ``device``.
        device: where the masks are made; default the generator's.

    Returns:
        (B, L) bool, True where masked.
    """
    count = (mask_ratio * length).ceil().clamp(1, length).to(device)
    noise = torch.rand(len(mask_ratio), length, generator=generator, device=generator.device)
    order = noise.to(device).argsort(dim=1, stable=True)
    rank = torch.arange(length, device=order.device)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, rank < count[:, None])
