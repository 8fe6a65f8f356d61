from __future__ import annotations

import pytest
import torch
from advreward import AugmentConfig, Augmenter
from torch import Tensor

OFF = {
    "crop_probability": 0.0,
    "max_translation": 0.0,
    "brightness": 0.0,
    "saturation": 0.0,
    "contrast": 0.0,
    "cutout": 0.0,
}


def augment(images: Tensor, seed: int = 0, **kwargs: float) -> Tensor:
    return Augmenter(AugmentConfig(**{**OFF, **kwargs}), seed)(images)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(64, 3, 8, 16, generator=torch.Generator().manual_seed(3))


def test_all_off_changes_nothing(images: Tensor) -> None:
    torch.testing.assert_close(augment(images), images, atol=1e-6, rtol=0)


def test_flips(images: Tensor) -> None:
    torch.testing.assert_close(
        augment(images, flip_probability=1.0), images.flip(3), atol=1e-5, rtol=0
    )
    some = augment(images, flip_probability=0.5)
    same = ((some - images).abs().amax((1, 2, 3)) < 1e-5).sum()
    flipped = ((some - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5).sum()
    assert same + flipped == 64
    assert 16 < same < 48


def test_translations_are_whole_pixels_with_black_behind(images: Tensor) -> None:
    moved = augment(images, max_translation=0.25)
    padded = torch.nn.functional.pad(images, (4, 4, 2, 2))
    candidates = {
        (dy, dx): padded[:, :, 2 + dy : 10 + dy, 4 + dx : 20 + dx]
        for dy in range(-2, 3)
        for dx in range(-4, 5)
    }
    found = []
    for index, image in enumerate(moved):
        hits = [shift for shift, x in candidates.items() if (x[index] - image).abs().max() < 1e-4]
        assert len(hits) == 1
        found += hits
    assert {abs(dy) for dy, _ in found} == {0, 1, 2}
    assert {dx for _, dx in found} >= {-4, 0, 4}


def test_a_crop_shows_a_window_in_full_size() -> None:
    ramp = torch.linspace(0, 1, 32).expand(200, 3, 32, 32)
    cropped = augment(ramp, crop_probability=1.0, crop_scale=0.5)
    left, right = cropped[:, 0, 0, 0], cropped[:, 0, 0, -1]
    # Half of the ramp, from anywhere that lies wholly inside.
    torch.testing.assert_close(right - left, torch.full((200,), 15.5 / 31), atol=1e-4, rtol=0)
    assert -1e-6 <= left.min() < 0.03
    assert 0.97 < right.max() <= 1 + 1e-6


def test_colours_by_the_formula() -> None:
    images = 0.4 + 0.2 * torch.rand(32, 3, 4, 4)
    brighter = augment(images, brightness=0.25) - images
    amount = brighter[:, :1, :1, :1]
    torch.testing.assert_close(brighter, amount.expand_as(brighter), atol=1e-5, rtol=0)
    assert amount.abs().max() <= 0.25
    assert amount.min() < -0.1 < 0.1 < amount.max()

    greyer = augment(images, saturation=1.0)
    mean = images.mean(1, keepdim=True)
    torch.testing.assert_close(greyer.mean(1, keepdim=True), mean, atol=1e-5, rtol=0)
    factor = (greyer - mean).flatten(1).norm(dim=1) / (images - mean).flatten(1).norm(dim=1)
    assert 0 <= factor.min() < 0.5 < 1.5 < factor.max() <= 2

    flatter = augment(images, contrast=0.5)
    torch.testing.assert_close(flatter.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5, rtol=0)
    factor = flatter.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.499 <= factor.min() < 0.8 < 1.2 < factor.max() <= 1.501


def test_cutout_is_one_square() -> None:
    images = torch.ones(100, 3, 8, 8)
    holes = augment(images, cutout=0.5) == 0
    assert torch.equal(holes[:, 0], holes[:, 2])
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 4
    assert rows.min() >= 2  # the centre lies inside the image


def test_stays_in_range_and_off_the_graph(images: Tensor) -> None:
    changed = Augmenter(AugmentConfig(flip_probability=0.5), 0)(images.requires_grad_())
    assert changed.shape == images.shape
    assert not changed.requires_grad
    assert 0 <= changed.min() < changed.max() <= 1
    assert (changed - images).abs().amax((1, 2, 3)).min() > 1e-3


def test_draws_are_seeded_and_resumed(images: Tensor) -> None:
    first, second, other = (Augmenter(AugmentConfig(), seed) for seed in (1, 1, 2))
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))
    resumed = Augmenter(AugmentConfig(), 5)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(first(images), resumed(images))


def test_an_image_is_changed_by_itself(images: Tensor) -> None:
    changed = images.clone()
    changed[1:] = 0.5
    whole, part = (Augmenter(AugmentConfig(), 0)(x) for x in (images, changed))
    torch.testing.assert_close(whole[0], part[0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"flip_probability": 1.5}, r"flip_probability must be in \[0, 1\], got 1.5"),
        ({"cutout": -0.1}, "cutout must be .* got -0.1"),
        ({"crop_scale": 0.0}, "crop_scale must be above 0"),
    ],
)
def test_config_errors_repeat_the_value(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**kwargs)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got torch.uint8 \(2, 3, 4, 4\)"):
        augment(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
