from collections.abc import Mapping

import pytest
import torch
from vqtok import perceptual_loss, reconstruction_loss


def test_reconstruction_distances() -> None:
    images = torch.zeros(2, 3, 4, 4)
    reconstruction = torch.full_like(images, -0.5)
    assert reconstruction_loss(reconstruction, images, "l1").item() == pytest.approx(0.5)
    assert reconstruction_loss(reconstruction, images, "l2").item() == pytest.approx(0.25)


def two_maps(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return {"pixels": images, "first_two": images[:, :2, :1]}


def test_perceptual_distance_of_orthogonal_features() -> None:
    images = torch.zeros(1, 3, 2, 2)
    images[:, 0] = 0.3
    other = torch.zeros_like(images)
    other[:, 2] = 5.0
    # First map: unit vectors at a right angle (2). Second: a unit vector against nothing (1).
    assert perceptual_loss(two_maps, other, images).item() == pytest.approx(1.5)


def test_perceptual_distance_ignores_the_scale_of_features() -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    assert perceptual_loss(two_maps, 0.5 * images, images).item() == pytest.approx(0, abs=1e-9)


def test_perceptual_gradients_reach_the_reconstruction_only() -> None:
    images = torch.rand(1, 3, 2, 2).requires_grad_()
    reconstruction = torch.rand(1, 3, 2, 2).requires_grad_()
    perceptual_loss(two_maps, reconstruction, images).backward()
    assert images.grad is None
    assert reconstruction.grad is not None
    assert reconstruction.grad.abs().sum() > 0
