"""Returns and advantages: by hand, by definition, and against stable-baselines3."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from policyrl import (
    compute_targets,
    explained_variance,
    generalized_advantages,
    returns_to_go,
)
from stable_baselines3.common.buffers import RolloutBuffer


def _episodes(num_steps, batch, seed):
    """Random rewards and values (T, B) and lengths from 1 to T."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, num_steps, batch, generator=generator)
    lengths = torch.randint(1, num_steps + 1, (batch,), generator=generator)
    return rewards, values, torch.arange(num_steps)[:, None] < lengths


def _targets(rewards, values, valid, **changes):
    settings_ = {
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "normalize_returns": False,
        "normalize_advantages": False,
        "gather": lambda x: x,
    }
    return compute_targets(rewards, values, valid, **{**settings_, **changes})


def test_returns_by_hand():
    rewards = torch.tensor([[1.0, 2.0], [3.0, 7.0], [5.0, 7.0]])
    valid = torch.tensor([[True, True], [True, False], [True, False]])
    expected = torch.tensor([[1 + 0.5 * (3 + 0.5 * 5), 2.0], [3 + 0.5 * 5, 0.0], [5.0, 0.0]])
    assert torch.equal(returns_to_go(rewards, valid, 0.5), expected)


def test_gae_by_hand():
    rewards = torch.tensor([[1.0], [2.0]])
    values = torch.tensor([[0.5], [1.5]])
    last = 2.0 - 1.5
    first = 1.0 + 0.9 * 1.5 - 0.5 + 0.9 * 0.8 * last
    got = generalized_advantages(rewards, values, torch.ones(2, 1, dtype=torch.bool), 0.9, 0.8)
    torch.testing.assert_close(got, torch.tensor([[first], [last]]))


@settings(max_examples=25, deadline=None)
@given(
    num_steps=st.integers(1, 6),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_gae_is_the_discounted_sum_of_errors(num_steps, gamma, gae_lambda, seed):
    rewards, values, valid = (x.double() for x in _episodes(num_steps, 3, seed))
    got = generalized_advantages(rewards, values, valid.bool(), gamma, gae_lambda)
    for b in range(3):
        n = int(valid[:, b].sum())
        v = [*values[:n, b].tolist(), 0.0]
        errors = [rewards[t, b].item() + gamma * v[t + 1] - v[t] for t in range(n)]
        for t in range(num_steps):
            expected = sum((gamma * gae_lambda) ** (k - t) * errors[k] for k in range(t, n))
            assert got[t, b].item() == pytest.approx(expected, abs=1e-12)


def test_gae_agrees_with_stable_baselines3():
    num_steps, batch, gamma, gae_lambda = 5, 4, 0.93, 0.81
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, num_steps, batch, generator=generator)
    space = Box(-1, 1, (1,))
    buffer = RolloutBuffer(
        num_steps, space, space, "cpu", gae_lambda=gae_lambda, gamma=gamma, n_envs=batch
    )
    for t in range(num_steps):
        start = np.full(batch, t == 0)
        blank = np.zeros((batch, 1))
        buffer.add(blank, blank, rewards[t].numpy(), start, values[t], torch.zeros(batch))
    buffer.compute_returns_and_advantage(torch.zeros(batch), np.ones(batch))
    valid = torch.ones(num_steps, batch, dtype=torch.bool)
    got = _targets(rewards, values, valid, gamma=gamma, gae_lambda=gae_lambda)
    torch.testing.assert_close(got.advantages, torch.from_numpy(buffer.advantages))
    torch.testing.assert_close(got.returns, torch.from_numpy(buffer.returns))


def test_normalised_returns_have_zero_mean_and_unit_spread():
    rewards, values, valid = _episodes(4, 50, 1)
    targets = _targets(rewards, values, valid, normalize_returns=True)
    returns = targets.returns[valid]
    assert returns.mean().item() == pytest.approx(0, abs=1e-6)
    assert returns.std().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(targets.advantages[valid], returns - values[valid])
    assert (targets.advantages[~valid] == 0).all()
    assert (targets.returns[~valid] == 0).all()


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_normalisation_does_not_see_scale_and_shift_of_the_reward(gae_lambda):
    # One reward a full-length episode, at its end: then the return shifts equally at every step.
    generator = torch.Generator().manual_seed(2)
    rewards = torch.zeros(3, 20)
    rewards[-1] = torch.randn(20, generator=generator)
    values = torch.randn(3, 20, generator=generator)
    valid = torch.ones(3, 20, dtype=torch.bool)
    moved = rewards.clone()
    moved[-1] = 3 * rewards[-1] + 7
    options = {"normalize_returns": True, "gae_lambda": gae_lambda}
    one, other = (_targets(r, values, valid, **options) for r in (rewards, moved))
    torch.testing.assert_close(one.advantages, other.advantages, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.returns, other.returns, rtol=1e-5, atol=1e-5)


def test_equal_rewards_give_no_advantage_from_rounding():
    rewards = torch.zeros(3, 8)
    rewards[-1] = 0.7
    values = torch.zeros(3, 8)
    targets = _targets(rewards, values, torch.ones(3, 8, dtype=torch.bool), normalize_returns=True)
    assert targets.advantages.abs().max() < 1e-6


def test_normalised_advantages_use_all_processes():
    rewards, values, valid = _episodes(4, 40, 3)
    whole = _targets(rewards, values, valid, normalize_advantages=True).advantages
    assert whole[valid].mean().item() == pytest.approx(0, abs=1e-6)
    assert whole[valid].std().item() == pytest.approx(1, abs=1e-5)
    halves = [slice(0, 20), slice(20, 40)]
    raw = _targets(rewards, values, valid).advantages
    for half in halves:
        part = _targets(
            rewards[:, half],
            values[:, half],
            valid[:, half],
            normalize_advantages=True,
            gather=lambda part: (valid if part.dtype == torch.bool else raw).flatten(),
        )
        torch.testing.assert_close(part.advantages, whole[:, half])


def test_one_decision_cannot_be_normalised():
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="at least 2"):
        _targets(one, one, one.bool(), normalize_returns=True)


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 4.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1)
    assert explained_variance(torch.zeros(3), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, torch.ones(3)))
