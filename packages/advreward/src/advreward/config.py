"""The settings of the adversarial reward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from advreward.losses import LossName, RewardName

FEATURE_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """How the discriminator learns and pays.

    Attributes:
        learning_rate: of AdamW without weight decay, i.e. Adam; 1e-4 as published.
        betas: (0.5, 0.999) as published.
        loss: ``"bce"`` or ``"hinge"``.
        reward: ``"probability"`` (sigmoid of the mean logit, as published) or ``"logit"``.
        max_grad_norm: gradients are scaled down to this norm; None for no limit.
        gradient_penalty: weight of `advreward.gradient_penalty` on the standardised features of
            the real side, halved as in R1; 0 for none.
        max_accuracy: an update whose batch (of all processes together) is already told apart better
            than this is skipped, which keeps the discriminator from running away; None to take
            every update.
        extract_batch_size: images per backbone pass.
        feature_dtype: in which features are handed out and cached. Both the reward and the updates
            see features so rounded. float16 keeps three digits at half the memory; bfloat16 two.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    loss: LossName = "bce"
    reward: RewardName = "probability"
    max_grad_norm: float | None = None
    gradient_penalty: float = 0.0
    max_accuracy: float | None = None
    extract_batch_size: int = 256
    feature_dtype: Literal["float32", "float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.loss not in ("bce", "hinge"):
            raise ValueError(f"loss must be 'bce' or 'hinge', got {self.loss!r}")
        if self.reward not in ("probability", "logit"):
            raise ValueError(f"reward must be 'probability' or 'logit', got {self.reward!r}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive or None, got {self.max_grad_norm}")
        if not 0 <= self.gradient_penalty < math.inf:
            raise ValueError(f"gradient_penalty must be at least 0, got {self.gradient_penalty}")
        if self.max_accuracy is not None and not 0.5 < self.max_accuracy < 1:
            raise ValueError(
                f"max_accuracy must be between 0.5 (blind) and 1, or None, got {self.max_accuracy}"
            )
        if self.extract_batch_size < 1:
            raise ValueError(
                f"extract_batch_size must be at least 1, got {self.extract_batch_size}"
            )
        if self.feature_dtype not in FEATURE_DTYPES:
            raise ValueError(
                f"feature_dtype must be one of {list(FEATURE_DTYPES)}, got {self.feature_dtype!r}"
            )
