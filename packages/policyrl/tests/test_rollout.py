"""Collecting: what is stored, where the reward lands, early ends, refusals."""

import pytest
import torch
from policyrl import collect, concatenate


def _collect(toys, env, count=6, seed=0, **options):
    critic = toys.Numbers(1, 7)
    generator = torch.Generator().manual_seed(seed)
    return collect(env, toys.policy(), critic, torch.arange(count), generator, **options)


def test_what_is_stored_is_what_happened(toys):
    rollout = _collect(toys, toys.Bandit())
    policy, critic = toys.policy(), toys.Numbers(1, 7)
    assert rollout.raw_actions.shape == (2, 6, 2)
    assert rollout.observations["numbers"].shape == (2, 6, 2)
    assert rollout.valid.all()
    assert rollout.outcome == {}
    for t in range(2):
        observation = {key: value[t] for key, value in rollout.observations.items()}
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
    observation = {key: value[1] for key, value in rollout.observations.items()}
    log_prob, _ = toys.policy().log_prob_entropy(observation, rollout.raw_actions[1])
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
    # numbers 2, timestep 2 (int64), raw 2, log-prob, value, reward at 4 bytes, valid at 1.
    assert rollout.num_bytes == 2 * 6 * (2 * 4 + 8 + 2 * 4 + 3 * 4 + 1)


def test_parts_join_along_the_episodes(toys):
    env = toys.Silent()
    parts = [_collect(toys, env, count=n, seed=n) for n in (2, 3)]
    joined = concatenate(parts)
    for name in ("raw_actions", "log_probs", "values", "rewards", "valid"):
        expected = torch.cat([getattr(part, name) for part in parts], dim=1)
        assert torch.equal(getattr(joined, name), expected)
    assert joined.outcome["episodes"].tolist() == [0, 1, 0, 1, 2]
    assert joined.observations["timestep"].shape == (2, 5)


def test_misfits_are_refused(toys):
    with pytest.raises(TypeError, match="Bandit has no outcome"):
        _collect(toys, toys.Bandit(), reward_model=lambda outcome: torch.zeros(6))
    with pytest.raises(ValueError, match=r"shape \(6, 1\), must be \(6,\)"):
        _collect(toys, toys.Silent(), reward_model=lambda outcome: torch.zeros(6, 1))
    rewards = torch.tensor([0, 0, float("nan"), 0, 0, 0])
    with pytest.raises(ValueError, match="1 of 6 rewards"):
        _collect(toys, toys.Silent(), reward_model=lambda outcome: rewards)
    for num_steps in (1, 3):
        with pytest.raises(ValueError, match=f"has {num_steps} steps, the policy 2: must be equal"):
            _collect(toys, toys.Bandit(num_steps=num_steps))
