from __future__ import annotations

import math

import pytest
import torch
from advreward import MixtureReward
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

REWARDS = {
    "mean": lambda outcome: outcome["images"].mean((1, 2, 3)),
    "label": lambda outcome: 1000.0 + 10.0 * outcome["labels"],
    "constant": lambda outcome: torch.full((len(outcome["labels"]),), 0.3),
}


@pytest.fixture
def outcome() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"images": torch.rand(6, 3, 2, 2), "labels": torch.arange(6)}


def test_weights_add_up(outcome: dict[str, Tensor]) -> None:
    mixture = MixtureReward(REWARDS, {"mean": 2.0, "label": -0.5, "constant": 1.0})
    expected = 2 * outcome["images"].mean((1, 2, 3)) - 500 - 5 * outcome["labels"] + 0.3
    torch.testing.assert_close(mixture(outcome), expected)
    assert set(mixture.parts(outcome)) == set(REWARDS)


def test_standardized_weights_compare_spreads(outcome: dict[str, Tensor]) -> None:
    mixture = MixtureReward(REWARDS, {"mean": 1.0, "label": 3.0, "constant": 7.0}, standardize=True)
    parts = mixture.parts(outcome)
    z = {name: (x - x.mean()) / x.std(correction=0) for name, x in parts.items()}
    torch.testing.assert_close(mixture(outcome), z["mean"] + 3 * z["label"])


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_standardizing_forgets_units(scale: float, shift: float) -> None:
    values = torch.linspace(-1, 2, 7, dtype=torch.float64) ** 3
    rewards = {"a": lambda _: values, "b": lambda _: values.flip(0) ** 2}
    changed = {**rewards, "a": lambda _: shift + scale * values}
    weights = {"a": 1.0, "b": 0.5}
    expected = MixtureReward(rewards, weights, standardize=True)({})
    torch.testing.assert_close(
        MixtureReward(changed, weights, standardize=True)({}), expected, atol=1e-6, rtol=1e-6
    )


def test_refuses_weights_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"rewards are \['constant', .* weights \['mean'\]"):
        MixtureReward(REWARDS, {"mean": 1.0})
    with pytest.raises(ValueError, match="give every reward one weight"):
        MixtureReward({}, {})
    with pytest.raises(ValueError, match=r"must be finite, got \{'mean': nan\}"):
        MixtureReward({"mean": REWARDS["mean"]}, {"mean": math.nan})
