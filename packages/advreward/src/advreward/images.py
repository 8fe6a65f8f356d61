"""What every frozen network does to images before its first layer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Channels = tuple[float, float, float]

# Of the data that CLIP was trained on; OpenCLIP, PickScore and BLIP keep them.
CLIP_PIXEL_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
CLIP_PIXEL_STD: Channels = (0.26862954, 0.26130258, 0.27577711)


def check_images(images: Tensor) -> None:
    """Raise ValueError unless ``images`` is floating (B, 3, H, W)."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            "images must be floating-point (B, 3, H, W) in [0, 1], "
            f"got {images.dtype} {tuple(images.shape)}"
        )


def prepare_images(
    images: Tensor,
    size: int,
    mean: Channels,
    std: Channels,
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Resizes images and standardises their channels.

    Args:
        images: (B, 3, H, W) in [0, 1], of any size.
        size: side in pixels of the result.
        mean: of the red, green and blue channel of images in [0, 1].
        std: standard deviations, likewise.
        mode: of the interpolation, which is antialiased.

    Returns:
        (B, 3, size, size), at least in float32.

    Raises:
        ValueError: if ``images`` is of another form.
    """
    check_images(images)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode=mode, antialias=True)
    # Number by number: a tensor of them would be a copy from the host, which waits for a GPU.
    if len(set(mean)) == len(set(std)) == 1:
        return (images - mean[0]) / std[0]
    channels = zip(images.unbind(1), mean, std, strict=True)
    return torch.stack([(channel - m) / s for channel, m, s in channels], dim=1)
