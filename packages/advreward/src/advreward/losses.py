"""The discriminator's objectives and what its logits are worth as a reward (as published).

Logits are (B, K): K local verdicts on each image, over all heads and positions. Every mean runs
over all B*K entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["bce", "hinge"]
RewardName = Literal["probability", "logit"]


def bce_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Non-saturating binary cross-entropy: mean softplus(-real) + mean softplus(fake).

    The sum of the two halves, not their mean. Its minimum over a blind discriminator is 2 ln 2.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge: mean relu(1 - real) + mean relu(1 + fake) (arXiv 1705.02894)."""
    return F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean()


def discriminator_loss(name: LossName, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Returns the named scalar loss of logits (B, K) of real and of fake images."""
    if name == "bce":
        return bce_loss(real_logits, fake_logits)
    if name == "hinge":
        return hinge_loss(real_logits, fake_logits)
    raise ValueError(f"loss must be 'bce' or 'hinge', got {name!r}")


def gradient_penalty(real_logits: Tensor, features: Sequence[Tensor]) -> Tensor:
    """R1 on features: the mean squared gradient norm of real images' logits (arXiv 1801.04406).

    The published form takes the gradient by the pixels; on frozen features that would send every
    update through the backbone.

    Args:
        real_logits: (N, K), a differentiable function of the features.
        features: maps of B >= N images whose first N rows gave those logits, asking for gradients.

    Returns:
        The mean over images of |d mean_k logit / d features|^2, a scalar with a graph.
    """
    gradients = torch.autograd.grad(real_logits.mean(dim=1).sum(), features, create_graph=True)
    count = len(real_logits)
    squared = [gradient[:count].float().square().sum() for gradient in gradients]
    return torch.stack(squared).sum() / count


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of the share of real logits above 0 and the share of fake logits below 0, a scalar.

    A logit of exactly 0 is no verdict and counts as wrong.
    """
    return ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2


def reward_from_logits(name: RewardName, logits: Tensor) -> Tensor:
    """Turns the logits (B, K) of an image into its reward (B,).

    ``"probability"`` is sigmoid(mean over K), in (0, 1): the mean comes before the sigmoid, as
    published. ``"logit"`` is the mean itself, which does not saturate when the
    discriminator is sure.
    """
    mean = logits.mean(dim=1)
    if name == "probability":
        return mean.sigmoid()
    if name == "logit":
        return mean
    raise ValueError(f"reward must be 'probability' or 'logit', got {name!r}")
