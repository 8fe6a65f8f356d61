"""Collecting episodes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policyrl.policy import GaussianPolicy
from policyrl.protocols import Environment, GenerativeEnvironment, RewardModel


class Rollout(NamedTuple):
    """B episodes of T steps, time first."""

    observations: dict[str, Tensor]  # each (T, B, ...), as the policy saw them
    raw_actions: Tensor  # (T, B, A) before the squashing
    log_probs: Tensor  # (T, B) of the raw actions when they were drawn
    values: Tensor  # (T, B) of the value network at that time
    rewards: Tensor  # (T, B), zero where not valid
    valid: Tensor  # (T, B) bool, False after an episode has terminated
    outcome: dict[str, Tensor]  # each (B, ...); empty if the environment has none

    @property
    def episode_rewards(self) -> Tensor:
        """Undiscounted sum of each episode's rewards, (B,)."""
        return self.rewards.sum(dim=0)

    @property
    def num_bytes(self) -> int:
        """Memory of the rollout's tensors."""
        parts = (self.raw_actions, self.log_probs, self.values, self.rewards, self.valid)
        tensors = (*parts, *self.observations.values(), *self.outcome.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.no_grad()
def collect(
    env: Environment,
    policy: GaussianPolicy,
    value_network: nn.Module,
    episodes: Tensor,
    generator: torch.Generator,
    *,
    reward_model: RewardModel | None = None,
    feature_dtype: torch.dtype | None = None,
    storage_device: torch.device | str | None = None,
) -> Rollout:
    """Play one batch of episodes with exploration.

    Args:
        env: the batch of episodes.
        policy: draws the actions.
        value_network: maps an observation to (B, 1).
        episodes: (B,) int64, which episodes to play.
        generator: source of the exploration noise.
        reward_model: judges the outcome; its reward is added at each episode's last step. The
            environment must then be a `GenerativeEnvironment`. It runs without autocast, whatever
            surrounds the call: a reward must not depend on the precision of the policy.
        feature_dtype: type in which floating observations are kept, such as torch.bfloat16. The
            policy acts on what is kept, so that log-probabilities stay comparable.
        storage_device: where the observations are kept, such as "cpu"; default: where they are.

    Raises:
        TypeError: where a reward model meets an environment without an outcome.
        ValueError: where environment and policy differ in their number of steps, or the reward
            model returns a wrong shape or numbers that are not finite.
    """
    if reward_model is not None and not isinstance(env, GenerativeEnvironment):
        raise TypeError(f"{type(env).__name__} has no outcome() for the reward model to judge")
    if env.num_steps != policy.num_steps:  # what is inert at the last step depends on it
        raise ValueError(
            f"the environment has {env.num_steps} steps, the policy {policy.num_steps}: "
            "must be equal"
        )
    observation = env.reset(episodes)
    alive = torch.ones_like(observation["timestep"], dtype=torch.bool)
    observations: dict[str, Tensor] = {}
    columns: list[tuple[Tensor, ...]] = []
    for t in range(env.num_steps):
        seen = {
            key: tensor.to(feature_dtype or tensor.dtype) if tensor.is_floating_point() else tensor
            for key, tensor in observation.items()
        }
        if t == 0:
            observations = {
                key: torch.empty(
                    (env.num_steps, *tensor.shape),
                    dtype=tensor.dtype,
                    device=tensor.device if storage_device is None else storage_device,
                )
                for key, tensor in seen.items()
            }
        for key, tensor in seen.items():
            observations[key][t].copy_(tensor)
        raw, log_prob = policy.act(seen, generator)
        value = value_network(seen).squeeze(-1).float()
        action = policy.spec.activate(raw, seen["timestep"])
        observation, reward, terminated = env.step(action)
        columns.append((raw, log_prob, value, torch.where(alive, reward.float(), 0.0), alive))
        alive = alive & ~terminated
    raw_actions, log_probs, values, rewards, valid = (
        torch.stack(column) for column in zip(*columns, strict=True)
    )
    outcome = dict(env.outcome()) if isinstance(env, GenerativeEnvironment) else {}
    if reward_model is not None:
        final = _judge(reward_model, outcome, episodes).to(rewards)
        last_step = valid.sum(dim=0, keepdim=True) - 1
        rewards.scatter_add_(0, last_step, final[None])
    return Rollout(
        observations=observations,
        raw_actions=raw_actions,
        log_probs=log_probs,
        values=values,
        rewards=rewards,
        valid=valid,
        outcome=outcome,
    )


def _judge(reward_model: RewardModel, outcome: Mapping[str, Tensor], episodes: Tensor) -> Tensor:
    num_episodes = len(episodes)
    with torch.autocast(episodes.device.type, enabled=False):
        reward = reward_model(outcome)
    if reward.shape != (num_episodes,):
        raise ValueError(
            f"the reward model returned shape {tuple(reward.shape)}, must be ({num_episodes},)"
        )
    if not reward.isfinite().all():
        bad = int((~reward.isfinite()).sum())
        raise ValueError(f"{bad} of {num_episodes} rewards of the reward model are not finite")
    return reward


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Join rollouts of equal length along the batch of episodes."""
    first = rollouts[0]
    if len(rollouts) == 1:
        return first
    joined = (
        torch.cat(parts, dim=1)
        for parts in zip(*(rollout[1:6] for rollout in rollouts), strict=True)
    )
    raw_actions, log_probs, values, rewards, valid = joined
    return Rollout(
        observations={
            key: torch.cat([rollout.observations[key] for rollout in rollouts], dim=1)
            for key in first.observations
        },
        raw_actions=raw_actions,
        log_probs=log_probs,
        values=values,
        rewards=rewards,
        valid=valid,
        outcome={
            key: torch.cat([rollout.outcome[key] for rollout in rollouts]) for key in first.outcome
        },
    )
