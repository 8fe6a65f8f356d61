"""A discriminator of image patches, for the adversarial part of a tokenizer's training."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.layers import group_norm

_KERNEL = 4
_MAX_MULTIPLIER = 8  # as published, channels stop doubling here


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    """Sizes of a patch discriminator.

    Attributes:
        base_channels: channels of the first layer; they double with each layer, up to 8 times.
        num_layers: layers that halve the resolution. With three, as published, a logit judges
            70x70 pixels and images need at least 24 pixels a side; with one, 16x16 and 6.
        norm_groups: groups of every group norm.

    Raises:
        ValueError: if a value is out of range or two values do not fit each other.
    """

    base_channels: int = 64
    num_layers: int = 3
    norm_groups: int = 8

    def __post_init__(self) -> None:
        for name in ("base_channels", "num_layers", "norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.base_channels % self.norm_groups:
            raise ValueError(
                f"base_channels ({self.base_channels}) must be divisible by norm_groups, "
                f"got {self.norm_groups}"
            )

    @property
    def min_image_size(self) -> int:
        """Smallest side of an image, in pixels, that still gets a logit."""
        return 3 << self.num_layers

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Channels after each layer but the last, which gives one logit."""
        return tuple(
            self.base_channels * min(2**layer, _MAX_MULTIPLIER)
            for layer in range(self.num_layers + 1)
        )


class PatchDiscriminator(nn.Module):
    """Judges each patch of an image by itself: the PatchGAN of VQGAN (arXiv 2012.09841).

    Group norm stands where the published one has batch norm, so a logit depends on its own image
    alone.

    Args:
        config: the sizes.
        in_channels: image channels.
    """

    def __init__(self, config: PatchDiscriminatorConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        channels = config.layer_channels
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels[0], _KERNEL, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for index, (previous, current) in enumerate(pairwise(channels), 1):
            stride = 2 if index < config.num_layers else 1
            layers += [
                nn.Conv2d(previous, current, _KERNEL, stride=stride, padding=1, bias=False),
                group_norm(current, config.norm_groups),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(channels[-1], 1, _KERNEL, padding=1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)  # as published

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1, h, w), high for real patches, of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.layers(2 * images - 1)
        return logits


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half of mean relu(1 - real) + mean relu(1 + fake), in float32 (as published for VQGAN)."""
    real = F.relu(1 - real_logits.float()).mean()
    fake = F.relu(1 + fake_logits.float()).mean()
    return 0.5 * (real + fake)
