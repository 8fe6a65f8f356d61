"""The published discriminator head, for compatibility with trained ones only.

It normalises over small groups of the batch, in evaluation too (StyleGAN-T's local batch norm), so
the logits of an image depend on its neighbours. `Discriminator` is free of that; use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from advreward.discriminator import Discriminator

GROUP_SIZE = 8
"""Images whose statistics are shared, as published."""

KERNEL_SIZE = 9
"""Width of the residual convolution over the flattened positions, as published."""


class LocalBatchNorm(nn.Module):
    """Batch norm over groups of at most 8 consecutive samples, without running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> the same; B must divide evenly into ceil(B / 8) groups."""
        groups = math.ceil(len(x) / GROUP_SIZE)
        if len(x) % groups:
            raise ValueError(
                f"a batch of {len(x)} does not divide into {groups} equal groups: "
                f"give a multiple of {GROUP_SIZE}"
            )
        grouped = x.unflatten(0, (groups, -1))
        variance, mean = torch.var_mean(grouped, dim=(1, 3), keepdim=True, correction=0)
        normed = ((grouped - mean) * torch.rsqrt(variance + 1e-5)).flatten(0, 1)
        out: Tensor = normed * self.weight[:, None] + self.bias[:, None]
        return out


class PublishedHead(nn.Module):
    """Judges one feature map at every position (`libs/discriminator.py`, DiscHead).

    Args:
        channels: C of the feature map.
        condition_dim: size of the condition vectors.
        projection_dim: size in which features and condition meet; 64 as published.
    """

    def __init__(self, channels: int, condition_dim: int, projection_dim: int) -> None:
        super().__init__()
        self.reduce = spectral_norm(nn.Conv1d(channels, channels, 1))
        self.reduce_norm = LocalBatchNorm(channels)
        self.mix = spectral_norm(
            nn.Conv1d(
                channels, channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2, padding_mode="circular"
            )
        )
        self.mix_norm = LocalBatchNorm(channels)
        self.verdict = spectral_norm(nn.Conv1d(channels, projection_dim, 1))
        self.project = nn.Linear(condition_dim, projection_dim)
        nn.init.normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, C, L) or (B, C, h, w), conditions (B, condition_dim) -> logits (B, L)."""
        h = F.leaky_relu(self.reduce_norm(self.reduce(x.flatten(2))), 0.2)
        h = (F.leaky_relu(self.mix_norm(self.mix(h)), 0.2) + h) / math.sqrt(2.0)
        out = self.verdict(h)
        # The weight is stored at unit scale and scaled here, the bias is not.
        scale = condition.shape[1] ** -0.5
        direction = F.linear(condition, self.project.weight * scale, self.project.bias)
        return torch.einsum("bdl,bd->bl", out, direction) / math.sqrt(out.shape[1])


class PublishedDiscriminator(Discriminator):
    """A `Discriminator` of published heads, whose logits depend on the batch.

    Of the config, ``hidden_channels`` and ``logit_size`` have no effect: a published head is as
    wide as its map and judges every position. Labels enter as one-hot vectors. Give batches whose
    sides are multiples of 8, so that no group mixes real and fake images.
    """

    def calibrate(self, features: Mapping[str, Tensor]) -> None:
        """Only notes that it was called: these heads normalise by themselves."""
        self.mark_calibrated()

    def standardize(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the features as float32, otherwise as they are."""
        self.check_features(features)
        return {name: features[name].float() for name in self.heads}

    def judge(self, standardized: Mapping[str, Tensor], condition: Tensor) -> Tensor:
        """Returns the logits (B, K) of features from `standardize`."""
        if self.config.num_classes is not None:
            condition = F.one_hot(condition, self.config.num_classes)
        return super().judge(standardized, condition.float())

    def make_head(self, in_channels: int) -> nn.Module:
        """Returns a published head."""
        condition_dim = self.config.num_classes or self.config.condition_dim or 0
        return PublishedHead(in_channels, condition_dim, self.config.projection_dim)


def import_head(head: PublishedHead, state: Mapping[str, Tensor]) -> None:
    """Loads one head's state under its official names (``main.0.0.weight_orig``, ...).

    Raises:
        RuntimeError: on missing or surplus names or shapes that do not fit, as PyTorch lists them.
    """
    modules = {
        "main.0.0": "reduce",
        "main.0.1": "reduce_norm",
        "main.1.fn.0": "mix",
        "main.1.fn.1": "mix_norm",
        "cls": "verdict",
        "cmapper": "project",
    }
    spectral = {
        "weight_orig": "parametrizations.weight.original",
        "weight_u": "parametrizations.weight.0._u",
        "weight_v": "parametrizations.weight.0._v",
    }
    renamed = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        renamed[f"{modules.get(module, module)}.{spectral.get(leaf, leaf)}"] = tensor
    head.load_state_dict(renamed)
