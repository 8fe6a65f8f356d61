from __future__ import annotations

import math

import pytest
import torch
from advreward import DiversityReward, MixtureReward, novelty
from torch import Tensor


def pooled(images: Tensor) -> Tensor:
    return images.flatten(1)


def test_distances_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    expected = [math.log(x) for x in (3.0, 2.0, 3.0, 6.0)]  # second neighbour
    assert novelty(line, neighbour=2).tolist() == pytest.approx(expected)
    # Too few neighbours: the furthest.
    furthest = [math.log(x) for x in (7.0, 6.0, 4.0, 7.0)]
    assert novelty(line, neighbour=9).tolist() == pytest.approx(furthest)


def test_neighbours_share_the_group() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0], [50.0]])
    groups = torch.tensor([0, 1, 0, 1, 2])
    values = novelty(line, groups, neighbour=1)
    expected = [math.log(x) for x in (3.0, 6.0, 3.0, 6.0)]
    assert values[:4].tolist() == pytest.approx(expected)
    assert values[4].item() == pytest.approx(sum(expected) / 4)  # alone: what is usual


@pytest.mark.parametrize("features", [torch.zeros(5, 2), torch.zeros(1, 2)])
def test_copies_and_lone_images_stay_finite(features: Tensor) -> None:
    assert novelty(features).isfinite().all()


def test_estimates_differences_of_entropy() -> None:
    """A Gaussian twice as wide has an entropy higher by D log 2 (Kozachenko, Leonenko)."""
    torch.manual_seed(0)
    narrow, wide = torch.randn(1000, 3), 2 * torch.randn(1000, 3)
    difference = 3 * (novelty(wide) - novelty(narrow)).mean().item()
    assert difference == pytest.approx(3 * math.log(2), abs=0.15)


def test_novelty_follows_minus_the_log_density() -> None:
    torch.manual_seed(0)
    features = torch.randn(1000, 2)
    log_density = -features.square().sum(1) / 2
    assert torch.corrcoef(torch.stack([novelty(features), -log_density]))[0, 1] > 0.8


@pytest.mark.parametrize("weight", [-0.5, 0.0, 1.0])
def test_the_weight_tempers_the_best_policy(weight: float) -> None:
    """A policy over three images, trained by policy gradient, ends at p_real^(1 / (1 + w))."""
    p_real = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    parameters = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=0.05)
    for _ in range(300):
        log_p = parameters.log_softmax(0)
        known = log_p.detach()
        mixture = MixtureReward(
            {
                "discriminator": lambda outcome, known=known: p_real.log() - known,
                "diversity": lambda outcome, known=known: -known,
            },
            {"discriminator": 1.0, "diversity": weight},
        )
        reward = mixture({"images": torch.empty(3)})
        optimizer.zero_grad()
        (-(log_p.exp() * (reward - reward.mean())).sum()).backward()
        optimizer.step()
    expected = p_real ** (1 / (1 + weight))
    torch.testing.assert_close(parameters.softmax(0), expected / expected.sum(), atol=1e-3, rtol=0)


def test_the_reward_reads_images_and_labels() -> None:
    images, labels = torch.rand(10, 3, 2, 2), torch.arange(10) % 2
    outcome = {"images": images, "labels": labels}
    within = DiversityReward(pooled, neighbour=1, batch_size=4)(outcome)
    torch.testing.assert_close(within, novelty(pooled(images), labels, neighbour=1))
    among_all = DiversityReward(pooled, group_name=None, neighbour=1)(outcome)
    torch.testing.assert_close(among_all, novelty(pooled(images), neighbour=1))
    assert not torch.equal(within, among_all)


def test_refuses_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="neighbour must be at least 1, got 0"):
        novelty(torch.zeros(3, 1), neighbour=0)
    with pytest.raises(ValueError, match="neighbour must be at least 1, got 0"):
        DiversityReward(pooled, neighbour=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DiversityReward(pooled, batch_size=0)
