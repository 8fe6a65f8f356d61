"""Latents to images."""

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.config import TokenizerConfig
from vqtok.layers import Upsample, group_norm, residual_blocks


class Decoder(nn.Module):
    """The published VQGAN decoder, the mirror of the encoder. Nothing squashes its output.

    ``levels`` and ``upsamples`` are indexed by level as in the encoder (0 is full resolution), so
    they are run from the last to the first; ``upsamples[i]`` leads from level i + 1 to level i.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels = config.level_channels
        groups = config.norm_groups
        self.conv_in = nn.Conv2d(config.codebook_dim, channels[-1], 3, padding=1)
        self.middle = residual_blocks(channels[-1], channels[-1], 2, groups)
        self.levels = nn.ModuleList(
            residual_blocks(coarser, current, config.num_res_blocks, groups)
            for coarser, current in zip((*channels[1:], channels[-1]), channels, strict=True)
        )
        self.upsamples = nn.ModuleList(
            Upsample(coarser, factor)
            for coarser, factor in zip(channels[1:], config.downsample_factors, strict=True)
        )
        self.norm_out = group_norm(channels[0], groups)
        self.conv_out = nn.Conv2d(channels[0], config.in_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, D, h, w) to images (B, C, H, W), not clamped."""
        x = self.levels[-1](self.middle(self.conv_in(latent)))
        for index in reversed(range(len(self.upsamples))):
            x = self.levels[index](self.upsamples[index](x))
        images: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return images
