"""Collecting episodes."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policyrl.actions import PREVIOUS_ACTION
from policyrl.observations import ObservationStore
from policyrl.policy import GaussianPolicy
from policyrl.protocols import Environment, GenerativeEnvironment, RewardModel


class Rollout(NamedTuple):
    """B episodes of T steps, time first."""

    observations: dict[str, Tensor]  # each (R, ...), as the policy saw them, R at most T B
    rows: Tensor  # (T, B) int64, where each decision's observation lies in them
    raw_actions: Tensor  # (T, B, A) before smoothing and squashing
    log_probs: Tensor  # (T, B) of the raw actions when they were drawn
    values: Tensor  # (T, B) of the value network at that time
    rewards: Tensor  # (T, B), zero where not valid
    valid: Tensor  # (T, B) bool, False after an episode has terminated
    outcome: dict[str, Tensor]  # each (B, ...); empty if the environment has none

    def observation(self, decisions: Tensor) -> dict[str, Tensor]:
        """What was seen at decisions t B + b, (n,) int64: tensors of n rows, on their device."""
        rows = self.rows.flatten()[decisions]
        return {
            name: tensor[rows.to(tensor.device)].to(rows.device)
            for name, tensor in self.observations.items()
        }

    @property
    def episode_rewards(self) -> Tensor:
        """Undiscounted sum of each episode's rewards, (B,)."""
        return self.rewards.sum(dim=0)

    @property
    def num_bytes(self) -> int:
        """Memory of the rollout's tensors."""
        tensors = (*self.observations.values(), *self[1:-1], *self.outcome.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Played(NamedTuple):
    """One batch of b episodes; fields as of `Rollout`."""

    raw_actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    valid: Tensor


@torch.no_grad()
def collect(
    env: Environment,
    policy: GaussianPolicy,
    value_network: nn.Module,
    episodes: Tensor,
    noise: Tensor,
    *,
    reward_model: RewardModel | None = None,
    batch_size: int | None = None,
    shared_first_step: Callable[[Tensor], Tensor] | None = None,
    feature_dtype: torch.dtype | None = None,
    storage_device: torch.device | str | None = None,
    kept_outcome: Collection[str] | None = None,
) -> Rollout:
    """Play episodes with exploration.

    Where the policy's actions are smoothed, its observations carry the smoothed action of the step
    before as "previous_action" (B, A).

    Args:
        env: the batch of episodes, reset for every batch.
        policy: draws the actions.
        value_network: maps an observation to (B, 1).
        episodes: (B,) int64, which episodes to play.
        noise: (T, B, A) standard normal exploration noise, on any device. It belongs to the
            episodes, so that batches do not change how they explore.
        reward_model: judges the outcome of each batch; its reward is added at each episode's last
            step. The environment must then be a `GenerativeEnvironment`. It runs without autocast,
            whatever surrounds the call: a reward must not depend on the precision of the policy.
        batch_size: episodes at a time; default all at once.
        shared_first_step: episodes (B,) -> keys (B,) int64, equal where the first observations are:
            for a masked generator, the class. They are then kept once a key.
        feature_dtype: type in which floating observations are kept, such as torch.bfloat16. The
            policy acts on what is kept, so that log-probabilities stay comparable.
        storage_device: where the observations are kept, such as "cpu"; default: where they are.
        kept_outcome: names of what is kept of the outcomes once they are judged; default all.

    Raises:
        TypeError: where a reward model meets an environment without an outcome.
        ValueError: where environment and policy differ in their number of steps, the noise has a
            wrong shape, first observations of one key differ, or the reward model returns a wrong
            shape or numbers that are not finite.
    """
    if reward_model is not None and not isinstance(env, GenerativeEnvironment):
        raise TypeError(f"{type(env).__name__} has no outcome() for the reward model to judge")
    if env.num_steps != policy.num_steps:  # what is inert at the last step depends on it
        raise ValueError(
            f"the environment has {env.num_steps} steps, the policy {policy.num_steps}: "
            "must be equal"
        )
    expected = (policy.num_steps, len(episodes), policy.spec.num_actions)
    if noise.shape != expected:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, must be {expected}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    store = ObservationStore(
        env.num_steps,
        episodes,
        first_step_keys=None if shared_first_step is None else shared_first_step(episodes),
        dtype=feature_dtype,
        device=storage_device,
    )
    noise = noise.to(episodes.device)  # at once: each copy makes the host wait
    batches: list[_Played] = []
    outcomes: list[dict[str, Tensor]] = []
    size = batch_size or len(episodes)
    for start in range(0, len(episodes), size):
        batch = episodes[start : start + size]
        played = _play(
            env, policy, value_network, batch, noise[:, start : start + size], store, start
        )
        outcome = dict(env.outcome()) if isinstance(env, GenerativeEnvironment) else {}
        if reward_model is not None:
            final = _judge(reward_model, outcome, batch)
            last = played.valid.sum(dim=0, keepdim=True) - 1
            played.rewards.scatter_add_(0, last, final[None].to(played.rewards))
        batches.append(played)
        outcomes.append(
            {k: v for k, v in outcome.items() if kept_outcome is None or k in kept_outcome}
        )
    joined = _Played(*(torch.cat(column, dim=1) for column in zip(*batches, strict=True)))
    return Rollout(
        observations=store.blocks,
        rows=store.rows,
        **joined._asdict(),
        outcome={name: torch.cat([part[name] for part in outcomes]) for name in outcomes[0]},
    )


def _play(
    env: Environment,
    policy: GaussianPolicy,
    value_network: nn.Module,
    episodes: Tensor,
    noise: Tensor,
    store: ObservationStore,
    start: int,
) -> _Played:
    """Play one batch and put its observations into the store."""
    observation = env.reset(episodes)
    alive = torch.ones_like(episodes, dtype=torch.bool)
    previous = torch.zeros(noise.shape[1:], device=episodes.device)
    steps: list[tuple[Tensor, ...]] = []
    for t in range(env.num_steps):
        if policy.spec.smoothing:
            observation = {**observation, PREVIOUS_ACTION: previous}
        seen = store.put(t, start, observation)
        raw, log_prob = policy.act(seen, noise[t])
        value = value_network(seen).squeeze(-1).float()
        previous = policy.spec.smooth(raw, previous)
        action = policy.spec.activate(previous, seen["timestep"])
        observation, reward, terminated = env.step(action)
        steps.append((raw, log_prob, value, torch.where(alive, reward.float(), 0.0), alive))
        alive = alive & ~terminated
    return _Played(*(torch.stack(column) for column in zip(*steps, strict=True)))


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
