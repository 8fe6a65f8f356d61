"""How far a reconstruction is from its image."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.protocols import PerceptualFeatures

ReconstructionLoss = Literal["l1", "l2"]
RECONSTRUCTION_LOSSES: tuple[str, ...] = get_args(ReconstructionLoss)


def reconstruction_loss(reconstruction: Tensor, images: Tensor, kind: ReconstructionLoss) -> Tensor:
    """Mean absolute ("l1") or mean squared ("l2") pixel difference, in float32.

    Args:
        reconstruction: (B, C, H, W), not clamped.
        images: (B, C, H, W) in [0, 1].
        kind: which norm.

    Returns:
        The scalar loss.
    """
    compare = F.l1_loss if kind == "l1" else F.mse_loss
    return compare(reconstruction.float(), images.float())


def perceptual_loss(features: PerceptualFeatures, reconstruction: Tensor, images: Tensor) -> Tensor:
    """Mean over feature maps of the squared distance between unit-length feature vectors.

    This is LPIPS (arXiv 1801.03924, eq. 1) with all channel weights equal to one: vectors are
    normalised over the channels, squared differences summed over the channels and averaged over
    positions, images and maps.

    Args:
        features: differentiable frozen features.
        reconstruction: (B, 3, H, W).
        images: (B, 3, H, W) in [0, 1].

    Returns:
        The scalar loss, in [0, 4].
    """
    with torch.no_grad():
        targets = {name: _normalise(values) for name, values in features(images).items()}
    distances = [
        (_normalise(values) - targets[name]).square().sum(1).mean()
        for name, values in features(reconstruction).items()
    ]
    return torch.stack(distances).mean()


def _normalise(values: Tensor) -> Tensor:
    return F.normalize(values.float(), dim=1, eps=1e-6)
