"""Building blocks that encoder and decoder share, in the layout of the published VQGAN."""

import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Affine group norm with the published epsilon of 1e-6."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions and a residual connection.

    As published, where the channel counts differ the shortcut transforms the *result* of the
    convolutions and the input is not added at all.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels, norm_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(out_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(h))


def residual_blocks(
    in_channels: int, out_channels: int, count: int, norm_groups: int
) -> nn.Sequential:
    """``count`` residual blocks, of which the first changes the number of channels."""
    return nn.Sequential(
        *(
            ResidualBlock(in_channels if i == 0 else out_channels, out_channels, norm_groups)
            for i in range(count)
        )
    )


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by an integer factor, then a 3x3 convolution."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, factor H, factor W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=self.factor, mode="nearest"))
        return out
