from __future__ import annotations

import math

import pytest
import torch
from advreward import (
    accuracy,
    bce_loss,
    discriminator_loss,
    gradient_penalty,
    hinge_loss,
    reward_from_logits,
)
from hypothesis import given
from hypothesis import strategies as st

LOGITS = st.lists(st.floats(-30, 30), min_size=4, max_size=4).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(2, 2)
)


def test_a_blind_discriminator() -> None:
    zeros = torch.zeros(3, 5)
    assert bce_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert hinge_loss(zeros, zeros).item() == 2.0
    assert accuracy(zeros, zeros).item() == 0.0  # no verdict is no merit


def test_accuracy_counts_each_side_alike() -> None:
    real, fake = torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, -2.0], [-1.0, 3.0]])
    assert accuracy(real, fake).item() == pytest.approx((0.5 + 0.75) / 2)


@given(real=LOGITS, fake=LOGITS)
def test_bce_is_the_cross_entropy(real: torch.Tensor, fake: torch.Tensor) -> None:
    expected = -(real.sigmoid().log().mean() + (-fake).sigmoid().log().mean())
    torch.testing.assert_close(bce_loss(real, fake), expected, atol=1e-9, rtol=1e-9)


@given(real=LOGITS, fake=LOGITS)
def test_swapping_the_sides_is_a_change_of_sign(real: torch.Tensor, fake: torch.Tensor) -> None:
    for loss in (bce_loss, hinge_loss, accuracy):
        torch.testing.assert_close(loss(real, fake), loss(-fake, -real))


@given(logits=LOGITS)
def test_the_mean_comes_before_the_sigmoid(logits: torch.Tensor) -> None:
    probability = reward_from_logits("probability", logits)
    torch.testing.assert_close(probability, logits.mean(1).sigmoid())
    torch.testing.assert_close(reward_from_logits("logit", logits), logits.mean(1))


def test_unknown_names_are_repeated() -> None:
    with pytest.raises(ValueError, match="'wasserstein'"):
        discriminator_loss("wasserstein", torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="'fid'"):
        reward_from_logits("fid", torch.zeros(1, 1))


def test_the_penalty_of_a_linear_judge_is_its_squared_slope() -> None:
    slope = torch.tensor([[3.0, -1.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    logits = x @ slope.T + 4 * y  # the mean over K = 2 has slopes (1.5, 0.5) and (2, 2)
    penalty = gradient_penalty(logits[:3], [x, y])
    assert penalty.item() == pytest.approx(1.5**2 + 0.5**2 + 2 * 2**2)
    (gradient,) = torch.autograd.grad(penalty, slope)
    torch.testing.assert_close(gradient, torch.tensor([[1.5, 0.5]] * 2, dtype=torch.float64))
