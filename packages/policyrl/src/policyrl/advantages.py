"""Returns and advantages.

Notation: T steps, B episodes; `valid` (T, B) marks the decisions before an episode's end. An
episode ends for good where it terminates or at the horizon: no value is bootstrapped beyond.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# As published: added to the standard deviation of the returns (AdaNAT `train.py`).
_EPSILON = 1e-7


def returns_to_go(rewards: Tensor, valid: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each step on: (T, B), zero where not valid."""
    return generalized_advantages(rewards, torch.zeros_like(rewards), valid, gamma, 1.0)


def generalized_advantages(
    rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """GAE(gamma, lambda), arXiv 1506.02438 eq. 16, over finite episodes.

    Args:
        rewards: (T, B).
        values: (T, B) estimates for the observations that the actions were chosen on.
        valid: (T, B) bool, True then False along T.
        gamma: discount.
        gae_lambda: 1 gives returns-to-go minus values, 0 the one-step error.

    Returns:
        (T, B), zero where not valid.
    """
    rewards = torch.where(valid, rewards, 0.0)
    values = torch.where(valid, values, 0.0)
    advantages = torch.zeros_like(rewards)
    advantage = next_value = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_value - values[t]
        advantage = torch.where(valid[t], delta + gamma * gae_lambda * advantage, 0.0)
        advantages[t] = advantage
        next_value = values[t]
    return advantages


class Targets(NamedTuple):
    """Constants of one PPO update, each (T, B) float32, zero where not valid."""

    advantages: Tensor
    returns: Tensor  # what the value network is to predict


def gather_valid(values: Tensor, valid: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """The valid entries of all processes, (n,): of values (T, B), T and B the same everywhere."""
    return gather(values.flatten())[gather(valid.flatten())]


def _moments(
    values: Tensor, valid: Tensor, gather: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviation plus epsilon, of the valid entries of all processes."""
    everything = gather_valid(values, valid, gather)
    if len(everything) < 2:
        raise ValueError(f"normalisation needs at least 2 decisions, there are {len(everything)}")
    return everything.mean(), everything.std() + _EPSILON


def compute_targets(
    rewards: Tensor,
    values: Tensor,
    valid: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    normalize_returns: bool,
    normalize_advantages: bool,
    gather: Callable[[Tensor], Tensor],
) -> Targets:
    """Advantages and value targets.

    With `normalize_returns` the value network predicts returns in units of their own batch:
    R = (G - mean) / (std + 1e-7) over all decisions of all processes, unbiased. Its predictions are
    brought back to reward units for GAE and the advantages divided by the same scale, which for
    gamma = lambda = 1 is the published A = R - v (AdaNAT `train.py`).

    Args:
        rewards: (T, B).
        values: (T, B) predictions when the episodes were played.
        valid: (T, B) bool.
        gamma: discount.
        gae_lambda: of GAE.
        normalize_returns: as above.
        normalize_advantages: standardise the advantages over the whole buffer.
        gather: concatenates the first axis over processes (`Engine.gather`).
    """
    # Double precision: nearly equal returns make the scale tiny next to the shift.
    rewards, values = rewards.double(), values.double()
    shift, scale = torch.zeros_like(rewards[0, 0]), torch.ones_like(rewards[0, 0])
    if normalize_returns:
        shift, scale = _moments(returns_to_go(rewards, valid, gamma), valid, gather)
    raw = generalized_advantages(rewards, shift + scale * values, valid, gamma, gae_lambda)
    advantages = raw / scale
    returns = torch.where(valid, advantages + values, 0.0)
    if normalize_advantages:
        mean, std = _moments(advantages, valid, gather)
        advantages = torch.where(valid, (advantages - mean) / std, 0.0)
    return Targets(advantages=advantages.float(), returns=returns.float())


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over (n,): 1 perfect, 0 no better than a constant.

    nan where the returns do not vary.
    """
    variance = returns.var(correction=0)
    if variance == 0:
        return float("nan")
    return 1.0 - ((returns - values).var(correction=0) / variance).item()
