"""Proximal policy optimisation: its loss and its hyper-parameters (arXiv 1707.06347)."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Hyper-parameters of PPO; the defaults are AdaNAT's (arXiv 2409.00342 and its public code).

    Attributes:
        learning_rate: of AdamW without weight decay, for the policy.
        value_learning_rate: for the value network; None: the same, as published. The rate of the
            policy is usually far too low for it: watch `explained_variance`.
        offset_learning_rate: for the policy's offsets, if it has any, in raw action units a step;
            None: the same as the policy's.
        clip_range: epsilon, how far the probability ratio may leave 1.
        update_epochs: passes over the buffer an update.
        num_minibatches: optimizer steps a pass; 1: the whole buffer at once.
        value_clip_range: how far a value may leave its prediction at collection time, in the units
            of the value network; None: anywhere.
        vf_coef: weight of the squared value error.
        ent_coef: weight of the entropy. Without a learned std it has no gradient.
        gamma: discount.
        gae_lambda: of GAE; 1: none.
        normalize_returns: let the value network predict standardised returns.
        normalize_advantages: standardise the advantages over the buffer.
        max_grad_norm: clip the joint gradient norm of both networks to this; None: no clipping.
        target_kl: stop an update's passes once the approximate KL exceeds 1.5 times this;
            None: never.
        std_schedule: pairs (update, std) with rising updates, the first 0: exploration std from
            that update on. Empty: the policy's own.
        chunk_size: decisions a forward and backward pass, to bound memory; the gradients are those
            of the whole minibatch. None: one pass.
    """

    learning_rate: float = 1e-5
    value_learning_rate: float | None = None
    offset_learning_rate: float | None = None
    clip_range: float = 0.2
    update_epochs: int = 5
    num_minibatches: int = 1
    value_clip_range: float | None = None
    vf_coef: float = 0.5
    ent_coef: float = 0.01
    gamma: float = 1.0
    gae_lambda: float = 1.0
    normalize_returns: bool = True
    normalize_advantages: bool = False
    max_grad_norm: float | None = None
    target_kl: float | None = None
    std_schedule: tuple[tuple[int, float], ...] = ()
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "learning_rate",
            "value_learning_rate",
            "offset_learning_rate",
            "clip_range",
            "value_clip_range",
            "max_grad_norm",
            "target_kl",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, must be positive and finite")
        for name in ("vf_coef", "ent_coef"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 0 and finite")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must lie in [0, 1]")
        for name in ("update_epochs", "num_minibatches", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        updates = [update for update, _ in self.std_schedule]
        rising = all(a < b for a, b in pairwise(updates))
        if updates and (updates[0] != 0 or not rising):
            raise ValueError(f"std_schedule has updates {updates}, must start at 0 and rise")
        if any(not 0 < std < math.inf for _, std in self.std_schedule):
            raise ValueError(f"std_schedule is {self.std_schedule}, each std must be positive")

    @classmethod
    def published(cls) -> Self:
        """AdaNAT's ImageNet setting; it plays 4096 episodes an update, 1000 updates.

        Its 4096 x 8 decisions go through the networks in chunks, with the same gradients.
        """
        return cls(std_schedule=((0, 0.6), (500, 0.3)), chunk_size=1024)

    def std_at(self, update: int) -> float | None:
        """The scheduled exploration std in this update; None without a schedule."""
        due = [std for start, std in self.std_schedule if start <= update]
        return due[-1] if due else None


class PPOLoss(NamedTuple):
    """The loss of n decisions with its parts, all scalars; only `loss` is to be differentiated."""

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor  # mean squared error, unweighted
    entropy: Tensor
    approx_kl: Tensor  # Schulman's k3 estimate of KL(old || new)
    clip_fraction: Tensor  # share of ratios beyond the clip range


def clip_values(values: Tensor, old_values: Tensor, clip_range: float | None) -> Tensor:
    """Keep predictions (n,) within clip_range of the old ones; None: leave them.

    A value at the edge has no gradient, as in stable-baselines3 (`clip_range_vf`).
    """
    if clip_range is None:
        return values
    return old_values + (values - old_values).clamp(-clip_range, clip_range)


def ppo_loss(
    *,
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    values: Tensor,
    returns: Tensor,
    entropy: Tensor,
    clip_range: float,
    vf_coef: float,
    ent_coef: float,
    weights: Tensor | None = None,
) -> PPOLoss:
    """Clipped surrogate, squared value error and entropy bonus (arXiv 1707.06347 eq. 7 and 9).

    Every part is a mean over the n decisions, or their sum by weight. So the loss of a batch is the
    sum of its chunks' if the weights are a mean's of the batch. For clipped values see
    `clip_values`.

    Args:
        log_probs: (n,) of the actions taken, under the current policy.
        old_log_probs: (n,) under the policy that took them.
        advantages: (n,) constants.
        values: (n,) current predictions, clipped or not.
        returns: (n,) constants that they should match.
        entropy: (n,) of the current policy.
        clip_range: epsilon.
        vf_coef: weight of the value error.
        ent_coef: weight of the entropy.
        weights: (n,) of the decisions; None: 1 / n each.
    """

    def mean(terms: Tensor) -> Tensor:
        return terms.mean() if weights is None else (weights * terms).sum()

    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -mean(torch.min(ratio * advantages, clipped * advantages))
    value_loss = mean((values - returns).square())
    mean_entropy = mean(entropy)
    loss = policy_loss + vf_coef * value_loss - ent_coef * mean_entropy
    with torch.no_grad():
        # k3 = (r - 1) - log r: unbiased, never negative (joschu.net/blog/kl-approx.html).
        approx_kl = mean(torch.expm1(log_ratio) - log_ratio)
        clip_fraction = mean(((ratio - 1).abs() > clip_range).float())
    return PPOLoss(
        loss=loss,
        policy_loss=policy_loss.detach(),
        value_loss=value_loss.detach(),
        entropy=mean_entropy.detach(),
        approx_kl=approx_kl,
        clip_fraction=clip_fraction,
    )
