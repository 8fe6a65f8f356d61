"""Encoder and decoder of LlamaGen's tokenizers (arXiv 2406.06525), `vq_ds16_c2i` among them.

They differ from the published VQGAN of `vqtok.encoder` in that convolutions have biases, shortcuts
transform the input, the resolution is halved by strided convolutions, the coarsest level has
attention, the decoder has one more block a level, 1x1 convolutions lie around the codebook, and
pixels are in [-1, 1] inside.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.config import TokenizerConfig
from vqtok.layers import Upsample, group_norm


class ShortcutBlock(nn.Module):
    """Two normalised 3x3 convolutions, added to the input or to a 1x1 convolution of it."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, norm_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class AttentionBlock(nn.Module):
    """Self-attention with one head over all positions, added to the input."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, norm_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self.norm(x)
        # One head of all channels: (B, 1, H W, C).
        q, k, v = (
            layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        out: Tensor = x + self.proj_out(mixed.unflatten(2, x.shape[2:]))
        return out


class StridedDownsample(nn.Module):
    """A 3x3 convolution of stride 2, padded at the right and the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H / 2, W / 2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention at the coarsest."""

    def __init__(
        self, in_channels: int, out_channels: int, count: int, norm_groups: int, *, attention: bool
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(
            ShortcutBlock(in_channels if i == 0 else out_channels, out_channels, norm_groups)
            for i in range(count)
        )
        self.attn = nn.ModuleList(
            AttentionBlock(out_channels, norm_groups) for _ in range(count if attention else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        for index, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x


class LlamaGenEncoder(nn.Module):
    """Images to latents, the convolution in front of the codebook included."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, groups = config.level_channels, config.norm_groups
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                previous,
                current,
                config.num_res_blocks,
                groups,
                attention=index == len(channels) - 1,
            )
            for index, (previous, current) in enumerate(pairwise((channels[0], *channels)))
        )
        self.downsamples = nn.ModuleList(StridedDownsample(width) for width in channels[:-1])
        self.middle = _middle(channels[-1], groups)
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], config.encoder_channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.encoder_channels, config.codebook_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Encodes images (B, C, H, W) in [0, 1] to latents (B, D, h, w)."""
        x = self.levels[0](self.conv_in(2 * images - 1))
        for downsample, level in zip(self.downsamples, self.levels[1:], strict=True):
            x = level(downsample(x))
        x = self.conv_out(F.silu(self.norm_out(self.middle(x))))
        latent: Tensor = self.quant_conv(x)
        return latent


class LlamaGenDecoder(nn.Module):
    """Latents to images, the convolution behind the codebook included.

    ``levels`` and ``upsamples`` are in the order in which they are run, from coarse to fine.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, groups = config.level_channels[::-1], config.norm_groups
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.encoder_channels, 1)
        self.conv_in = nn.Conv2d(config.encoder_channels, channels[0], 3, padding=1)
        self.middle = _middle(channels[0], groups)
        self.levels = nn.ModuleList(
            Level(previous, current, config.num_res_blocks + 1, groups, attention=index == 0)
            for index, (previous, current) in enumerate(pairwise((channels[0], *channels)))
        )
        self.upsamples = nn.ModuleList(Upsample(width, 2) for width in channels[:-1])
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], config.in_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, D, h, w) to images (B, C, H, W), not clamped, for [0, 1]."""
        x = self.levels[0](self.middle(self.conv_in(self.post_quant_conv(latent))))
        for upsample, level in zip(self.upsamples, self.levels[1:], strict=True):
            x = level(upsample(x))
        images: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return (images + 1) / 2


def _middle(channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        ShortcutBlock(channels, channels, groups),
        AttentionBlock(channels, groups),
        ShortcutBlock(channels, channels, groups),
    )
