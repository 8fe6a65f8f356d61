"""Diagonal Gaussians over the components that count."""

import math

import torch
from torch import Tensor


def gaussian_log_prob(raw: Tensor, mean: Tensor, std: Tensor, active: Tensor) -> Tensor:
    """Log-density of raw actions, summed over the active components.

    Args:
        raw: (B, A) actions.
        mean: (B, A).
        std: scalar or (A,), positive.
        active: (B, A) bool; the other components contribute neither value nor gradient.

    Returns:
        (B,).
    """
    scaled = (raw - mean) / std
    terms = -0.5 * scaled.square() - std.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(active, terms, 0.0).sum(dim=-1)


def gaussian_entropy(std: Tensor, active: Tensor) -> Tensor:
    """Differential entropy in nats, (B,), of the components marked in `active`, (B, A) bool.

    The standard deviation is a scalar or (A,).
    """
    terms = 0.5 * (1 + math.log(2 * math.pi)) + std.log()
    return torch.where(active, terms, 0.0).sum(dim=-1)
