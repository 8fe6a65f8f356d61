"""A projected discriminator without batch statistics.

In the manner of StyleGAN-T (arXiv 2301.09515, sec. 3.2): one light head with spectral norm on each
feature map of a frozen backbone, and a projection on the condition (arXiv 1802.05637). Unlike the
published heads, which normalise over groups of the batch also in evaluation, these are functions of
one image and its condition: a reward must not depend on the neighbours in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of a discriminator.

    Exactly one of ``num_classes`` and ``condition_dim`` says what the condition is.

    Attributes:
        channels: the backbone's feature maps, name -> number of channels; one head each.
        num_classes: conditions are labels (B,) int64 in [0, num_classes).
        condition_dim: conditions are vectors (B, condition_dim) float, e.g. pooled text embeddings.
            Each is brought to unit mean square first, so that encoders of any scale have the say
            that a class has; a vector of zeros (no text) stays zero.
        hidden_channels: upper limit to the width of a head; narrower maps keep their own width, so
            that the fine, large maps stay cheap.
        projection_dim: size in which features and condition meet.
        logit_size: side of the grid of verdicts of each head. The same for all heads, whatever the
            size of their maps, so that all have the same say in the loss and in the reward.
    """

    channels: Mapping[str, int]
    num_classes: int | None = None
    condition_dim: int | None = None
    hidden_channels: int = 64
    projection_dim: int = 64
    logit_size: int = 4

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels.values()) < 1:
            raise ValueError(
                f"channels must name feature maps of >= 1 channel, got {self.channels}"
            )
        if (self.num_classes is None) == (self.condition_dim is None):
            raise ValueError(
                "exactly one of num_classes and condition_dim must be given, "
                f"got {self.num_classes} and {self.condition_dim}"
            )
        for name in (
            "num_classes",
            "condition_dim",
            "hidden_channels",
            "projection_dim",
            "logit_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def condition_name(self) -> str:
        """Under which name an outcome holds the conditions: ``"labels"`` or ``"condition"``."""
        return "labels" if self.num_classes is not None else "condition"

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError unless ``condition`` is what the fields above say."""
        if self.condition_dim is not None:
            if not condition.is_floating_point() or condition.shape[1:] != (self.condition_dim,):
                raise ValueError(
                    f"conditions must be floating (B, {self.condition_dim}), "
                    f"got {condition.dtype} {tuple(condition.shape)}"
                )
        elif condition.ndim != 1 or condition.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 (B,), got {condition.dtype} {tuple(condition.shape)}"
            )
        elif len(condition):
            low, high = (int(bound) for bound in condition.aminmax())
            if low < 0 or high >= (self.num_classes or 0):
                raise ValueError(f"labels must be in [0, {self.num_classes}), got [{low}, {high}]")


class VectorProjection(nn.Module):
    """Conditions (B, condition_dim) -> deviations (B, projection_dim) of unit variance at first."""

    def __init__(self, condition_dim: int, projection_dim: int) -> None:
        super().__init__()
        scale = condition_dim**-0.5
        self.weight = nn.Parameter(torch.randn(projection_dim, condition_dim) * scale)

    def forward(self, condition: Tensor) -> Tensor:
        """Returns the linear map of the conditions, each brought to unit mean square."""
        condition = condition.to(self.weight.dtype)
        return F.linear(F.rms_norm(condition, condition.shape[1:]), self.weight)


class DiscriminatorHead(nn.Module):
    """Judges one feature map: (B, C, h, w) and a condition -> (B, logit_size^2) logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        width = min(in_channels, config.hidden_channels)
        self.logit_size = config.logit_size
        self.register_buffer("mean", torch.zeros(in_channels, 1, 1))
        self.register_buffer("std", torch.ones(in_channels, 1, 1))
        self.reduce = spectral_norm(nn.Conv2d(in_channels, width, 1))
        self.mix = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.norm = nn.GroupNorm(math.gcd(width, 8), width)
        self.verdict = spectral_norm(nn.Conv2d(width, config.projection_dim, 1))
        # Miyato & Koyama: an unconditional direction, and the condition's deviation from it.
        self.direction = nn.Parameter(torch.randn(config.projection_dim))
        self.deviation: nn.Module
        if config.condition_dim is not None:
            self.deviation = VectorProjection(config.condition_dim, config.projection_dim)
        else:
            # __post_init__ admits no other case than classes.
            self.deviation = nn.Embedding(config.num_classes or 0, config.projection_dim)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Fixes the input standardisation to the channel statistics of x (B, C, h, w)."""
        std, mean = torch.std_mean(x.float(), dim=(0, 2, 3), keepdim=True, correction=0)
        self.mean.copy_(mean[0])
        # A channel that hardly ever fires must not be blown up.
        self.std.copy_(std[0].clamp_min(0.01 * float(std.mean())).clamp_min(1e-6))

    def standardize(self, x: Tensor) -> Tensor:
        """Levels the channels of x (B, C, h, w) by the calibrated statistics."""
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Returns the logits (B, logit_size^2) of a standardised map."""
        x = F.leaky_relu(self.reduce(x), 0.2)
        # The norm sits in the branch only: the skip keeps the strength of the activations, which
        # tells a blurred image from a sharp one.
        x = (F.leaky_relu(self.norm(self.mix(x)), 0.2) + x) / math.sqrt(2.0)
        x = self.verdict(F.adaptive_avg_pool2d(x, self.logit_size)).flatten(2)
        direction: Tensor = self.direction + self.deviation(condition)
        return torch.einsum("bdk,bd->bk", x, direction) / math.sqrt(direction.shape[1])


class Discriminator(nn.Module):
    """Heads over the feature maps of a frozen backbone.

    The logits of an image depend on its features and its condition alone, in training and in
    evaluation; in evaluation they are also a fixed function (training mode moves the spectral-norm
    estimates on).
    """

    calibrated: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = nn.ModuleDict(
            {name: self.make_head(count) for name, count in config.channels.items()}
        )
        self.register_buffer("calibrated", torch.tensor(False))
        self.is_calibrated = False  # the buffer's value, read without waiting for its device

    def make_head(self, in_channels: int) -> nn.Module:
        """Returns the head of a feature map with ``in_channels`` channels."""
        return DiscriminatorHead(in_channels, self.config)

    def calibrate(self, features: Mapping[str, Tensor]) -> None:
        """Sets each head's input standardisation from a batch of features, once and for all.

        Backbone activations differ in scale by an order of magnitude between maps and channels.
        Fixed statistics level them without making an image's logits depend on its neighbours.
        """
        self.check_features(features)
        for name, head in self.heads.items():
            if isinstance(head, DiscriminatorHead):
                head.calibrate(features[name].to(head.mean.device))
        self.mark_calibrated()

    def mark_calibrated(self) -> None:
        """Notes that `calibrate` has been called."""
        self.calibrated.fill_(True)
        self.is_calibrated = True

    def forward(self, features: Mapping[str, Tensor], condition: Tensor) -> Tensor:
        """Judges a batch.

        Args:
            features: name -> (B, C, h, w) for every name of ``config.channels``; any floating type.
            condition: labels (B,) int64, or vectors (B, condition_dim) float.

        Returns:
            (B, K) logits, above 0 for real.
        """
        return self.judge(self.standardize(features), condition)

    def standardize(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the feature maps of the config, levelled by the calibrated statistics."""
        self.check_features(features)
        return {
            name: head.standardize(features[name])
            for name, head in self.heads.items()
            if isinstance(head, DiscriminatorHead)
        }

    def judge(self, standardized: Mapping[str, Tensor], condition: Tensor) -> Tensor:
        """Returns the logits (B, K) of features from `standardize`."""
        logits = [head(standardized[name], condition) for name, head in self.heads.items()]
        return torch.cat(logits, dim=1)

    def check_features(self, features: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless every map of the config is there, with its channels."""
        for name, count in self.config.channels.items():
            if name not in features:
                raise ValueError(f"no feature map {name!r} among {sorted(features)}")
            shape = tuple(features[name].shape)
            if len(shape) != 4 or shape[1] != count:
                raise ValueError(f"feature map {name!r} must be (B, {count}, h, w), got {shape}")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.is_calibrated = bool(self.calibrated)
