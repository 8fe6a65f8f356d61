"""Collecting: what is stored, where the reward lands, early ends, refusals."""

import pytest
import torch
from policyrl import ActionComponent, ActionSpec, GaussianPolicy, collect


def _noise(count):
    return torch.randn(2, count, 2, generator=torch.Generator().manual_seed(0))


def _collect(toys, env, count=6, **options):
    critic = toys.Numbers(1, 7)
    return collect(env, toys.policy(), critic, torch.arange(count), _noise(count), **options)


def _seen(rollout, t):
    """The observation of every episode at a step."""
    count = rollout.valid.shape[1]
    return rollout.observation(torch.arange(t * count, (t + 1) * count))


def test_what_is_stored_is_what_happened(toys):
    rollout = _collect(toys, toys.Bandit())
    policy, critic = toys.policy(), toys.Numbers(1, 7)
    assert rollout.raw_actions.shape == (2, 6, 2)
    assert rollout.observations["numbers"].shape == (12, 2)
    assert rollout.valid.all()
    assert rollout.outcome == {}
    for t in range(2):
        observation = _seen(rollout, t)
        assert observation["timestep"].tolist() == [t] * 6
        log_prob, _ = policy.log_prob_entropy(observation, rollout.raw_actions[t])
        torch.testing.assert_close(log_prob, rollout.log_probs[t])
        torch.testing.assert_close(critic(observation).squeeze(1), rollout.values[t])
        x, y = observation["numbers"].T
        target = x - 0.5 * y + 0.8 * (-1) ** t
        reward = -(rollout.raw_actions[t, :, 0] - target).square()
        torch.testing.assert_close(rollout.rewards[t], reward)
    assert not rollout.log_probs.requires_grad
    assert not rollout.values.requires_grad


def test_an_episode_that_ended_counts_no_further(toys):
    rollout = _collect(toys, toys.Bandit(early=True))
    assert rollout.valid.tolist() == [[True] * 6, [False, True] * 3]
    assert (rollout.rewards[~rollout.valid] == 0).all()
    assert (rollout.rewards[rollout.valid] != 0).all()


@pytest.mark.parametrize("early", [False, True])
def test_the_judgement_lands_on_the_last_step(toys, early):
    rollout = _collect(
        toys,
        toys.Silent(early=early),
        reward_model=lambda outcome: outcome["episodes"].float() + 1,
    )
    expected = torch.zeros(2, 6)
    for episode in range(6):
        expected[episode % 2 if early else 1, episode] = episode + 1
    assert torch.equal(rollout.rewards, expected)
    assert torch.equal(rollout.episode_rewards, torch.arange(6.0) + 1)
    assert set(rollout.outcome) == {"total", "episodes"}


def test_the_policy_acts_on_what_is_kept(toys):
    rollout = _collect(toys, toys.Bandit(), feature_dtype=torch.bfloat16, storage_device="cpu")
    assert rollout.observations["numbers"].dtype == torch.bfloat16
    assert rollout.observations["timestep"].dtype == torch.int64
    log_prob, _ = toys.policy().log_prob_entropy(_seen(rollout, 1), rollout.raw_actions[1])
    torch.testing.assert_close(log_prob, rollout.log_probs[1])


def test_what_is_kept_is_a_copy(toys):
    class Reusing(toys.Bandit):
        def _observe(self):  # overwrites its last observation
            fresh = super()._observe()
            self.buffers = getattr(self, "buffers", fresh)
            for key, buffer in self.buffers.items():
                buffer.copy_(fresh[key])
            return self.buffers

    ours, expected = _collect(toys, Reusing()), _collect(toys, toys.Bandit())
    for key, tensor in expected.observations.items():
        assert torch.equal(ours.observations[key], tensor), key


def test_the_reward_model_runs_without_autocast(toys):
    def reward_model(outcome):
        assert not torch.is_autocast_enabled("cpu")
        return outcome["total"]

    with torch.autocast("cpu", torch.bfloat16):
        _collect(toys, toys.Silent(), reward_model=reward_model)


def test_memory_is_stated(toys):
    rollout = _collect(toys, toys.Bandit())
    # numbers 2, timestep and row (int64), raw 2, log-prob, value, reward at 4 bytes, valid at 1.
    assert rollout.num_bytes == 2 * 6 * (2 * 4 + 2 * 8 + 2 * 4 + 3 * 4 + 1)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches_change_nothing(toys, batch_size):
    whole = _collect(toys, toys.Silent(early=True), reward_model=lambda outcome: outcome["total"])
    some = _collect(
        toys,
        toys.Silent(early=True),
        reward_model=lambda outcome: outcome["total"],
        kept_outcome=["episodes"],
    )
    assert list(some.outcome) == ["episodes"]
    assert torch.equal(some.rewards, whole.rewards)
    parts = _collect(
        toys,
        toys.Silent(early=True),
        reward_model=lambda outcome: outcome["total"],
        batch_size=batch_size,
    )
    for name in ("rows", "raw_actions", "log_probs", "values", "rewards", "valid"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    for name in ("observations", "outcome"):
        expected = getattr(whole, name)
        for key, tensor in getattr(parts, name).items():
            torch.testing.assert_close(tensor, expected[key])


class _Classes:
    """Two steps; the first observation depends on the class alone, episode mod 3."""

    num_steps = 2

    def __init__(self, scale=1.0):
        self.scale = scale

    def reset(self, episodes):
        self.episodes = episodes
        numbers = torch.sin(self.scale * (episodes[:, None] % 3) + torch.tensor([1.0, 2.0]))
        return {"numbers": numbers, "timestep": torch.zeros_like(episodes)}

    def step(self, action):
        numbers = torch.stack([action["x"], self.episodes.float()], dim=1)
        ended = torch.ones_like(self.episodes, dtype=torch.bool)
        later = {"numbers": numbers, "timestep": torch.ones_like(self.episodes)}
        return later, action["x"], ended


@pytest.mark.parametrize("batch_size", [2, 7])
@pytest.mark.parametrize("feature_dtype", [None, torch.bfloat16])
def test_equal_first_steps_are_kept_once(toys, batch_size, feature_dtype):
    options = {"feature_dtype": feature_dtype, "batch_size": batch_size, "storage_device": "cpu"}
    whole = _collect(toys, _Classes(), count=7, **options)
    shared = _collect(
        toys, _Classes(), count=7, shared_first_step=lambda episodes: episodes % 3, **options
    )
    assert whole.observations["numbers"].shape == (14, 2)
    assert shared.observations["numbers"].shape == (3 + 7, 2)
    assert shared.rows[0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    for t in range(2):
        expected = _seen(whole, t)
        for key, tensor in _seen(shared, t).items():
            assert torch.equal(tensor, expected[key])
    for name in ("raw_actions", "log_probs", "values", "rewards"):
        assert torch.equal(getattr(shared, name), getattr(whole, name))


def test_unequal_first_steps_of_one_key_are_refused(toys):
    with pytest.raises(ValueError, match=r"1 of 3 episodes differ in the .*'numbers'"):
        _collect(
            toys,
            _Classes(),
            count=3,
            shared_first_step=lambda episodes: torch.tensor([0, 1, 0]),
        )
    # What rounding changes is no difference: the policy sees the row that is kept.
    rollout = _collect(
        toys,
        _Classes(scale=1e-4),
        count=3,
        shared_first_step=torch.zeros_like,
        feature_dtype=torch.bfloat16,
    )
    assert rollout.observations["numbers"].shape == (1 + 3, 2)
    log_prob, _ = toys.policy().log_prob_entropy(_seen(rollout, 0), rollout.raw_actions[0])
    torch.testing.assert_close(log_prob, rollout.log_probs[0])
    with pytest.raises(ValueError, match=r"keys of the first step have shape \(1,\), .* \(3,\)"):
        _collect(toys, _Classes(), count=3, shared_first_step=lambda episodes: episodes[:1])


class _Echo:
    """Three steps without an observation of their own; remembers the actions."""

    num_steps = 3

    def reset(self, episodes):
        self.t, self.actions = 0, []
        return {"timestep": torch.zeros_like(episodes)}

    def step(self, action):
        self.t += 1
        self.actions.append(action["x"])
        timestep = torch.full_like(action["x"], min(self.t, 2), dtype=torch.int64)
        return {"timestep": timestep}, torch.zeros_like(action["x"]), timestep > 2


class _Mean(torch.nn.Module):
    """Reads the action before."""

    def forward(self, observation):
        return 0.5 * observation["previous_action"] + observation["timestep"][:, None]


def test_smoothing_is_in_what_the_policy_saw():
    spec = ActionSpec(
        [ActionComponent(name="x", squash="identity")],
        torch.tensor([[1.0], [5.0], [2.0]]),
        smoothing=0.8,
    )
    policy, env = GaussianPolicy(_Mean(), spec, std=0.3), _Echo()
    noise = torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(0))
    critic = lambda observation: observation["previous_action"]  # noqa: E731
    rollout = collect(env, policy, critic, torch.arange(4), noise)
    smoothed = torch.zeros(4, 1)
    for t in range(3):
        observation = _seen(rollout, t)
        torch.testing.assert_close(observation["previous_action"], smoothed)
        log_prob, _ = policy.log_prob_entropy(observation, rollout.raw_actions[t])
        assert torch.equal(log_prob, rollout.log_probs[t])
        smoothed = 0.8 * smoothed + 0.2 * rollout.raw_actions[t]
        torch.testing.assert_close(env.actions[t], smoothed[:, 0] + spec.prior[t, 0])


def test_misfits_are_refused(toys):
    with pytest.raises(TypeError, match="Bandit has no outcome"):
        _collect(toys, toys.Bandit(), reward_model=lambda outcome: torch.zeros(6))
    with pytest.raises(ValueError, match=r"shape \(6, 1\), must be \(6,\)"):
        _collect(toys, toys.Silent(), reward_model=lambda outcome: torch.zeros(6, 1))
    rewards = torch.tensor([0, 0, float("nan"), 0, 0, 0])
    with pytest.raises(ValueError, match="1 of 6 rewards"):
        _collect(toys, toys.Silent(), reward_model=lambda outcome: rewards)
    with pytest.raises(ValueError, match=r"noise has shape \(2, 6, 2\), must be \(2, 5, 2\)"):
        collect(toys.Bandit(), toys.policy(), toys.Numbers(1, 7), torch.arange(5), noise=_noise(6))
    with pytest.raises(ValueError, match="batch_size is 0"):
        _collect(toys, toys.Bandit(), batch_size=0)
    for num_steps in (1, 3):
        with pytest.raises(ValueError, match=f"has {num_steps} steps, the policy 2: must be equal"):
            _collect(toys, toys.Bandit(num_steps=num_steps))
