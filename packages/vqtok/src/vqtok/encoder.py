"""Images to latents."""

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.config import TokenizerConfig
from vqtok.layers import group_norm, residual_blocks


class Encoder(nn.Module):
    """The published VQGAN encoder: residual levels with average pooling between them.

    No attention; between levels there is pooling without a convolution.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels = config.level_channels
        groups = config.norm_groups
        self.factors = config.downsample_factors
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            residual_blocks(previous, current, config.num_res_blocks, groups)
            for previous, current in zip((channels[0], *channels[:-1]), channels, strict=True)
        )
        self.middle = residual_blocks(channels[-1], channels[-1], 2, groups)
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], config.codebook_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Encodes images (B, C, H, W) in [0, 1] to latents (B, D, h, w)."""
        x = self.conv_in(images)
        for index, level in enumerate(self.levels):
            if index > 0:
                x = F.avg_pool2d(x, self.factors[index - 1])
            x = level(x)
        latent: Tensor = self.conv_out(F.silu(self.norm_out(self.middle(x))))
        return latent
