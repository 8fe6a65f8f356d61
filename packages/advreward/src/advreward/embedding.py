"""Running a frozen network over many images."""

from __future__ import annotations

import torch
from torch import Tensor

from advreward.protocols import PooledFeatures


@torch.no_grad()
def embed(pooled: PooledFeatures, images: Tensor, batch_size: int) -> Tensor:
    """Returns the features (N, D) of images (N, 3, H, W), computed in parts and without autocast.

    Raises:
        ValueError: if the network does not give one vector an image.
    """
    with torch.autocast(images.device.type, enabled=False):
        features = torch.cat([pooled(part) for part in torch.split(images, batch_size)])
    if features.ndim != 2 or len(features) != len(images):
        raise ValueError(
            f"the network must give (B, D) features, got {tuple(features.shape)} for "
            f"{len(images)} images"
        )
    return features
