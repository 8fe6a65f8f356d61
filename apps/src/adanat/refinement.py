"""Refinement while sampling: several candidates for each image, of which the reward keeps one.

AdaGen (arXiv 2603.06993) names such a refinement by the reward that trained the policy; its code is
not public. This is the plain form, best of n: n times the network passes, n decodings and n
judgements for each image that is kept. What it keeps is more alike than what it draws from, so
measure recall beside the gain.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from advreward import RewardModel
from natgen import DecodingPolicy
from torch import Tensor

from adanat.generation import Generator, from_uint8
from adanat.seeding import derive_seed


class RefinedBatch(NamedTuple):
    """The best candidates of consecutive sample indices."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64."""
    rewards: Tensor
    """(n, B), what each candidate was paid."""
    chosen: Tensor
    """(B,) int64 in [0, n): the first of the best."""


def refined_batches(
    generator: Generator,
    policy: DecodingPolicy,
    reward: RewardModel,
    conditions: Callable[[Tensor], Mapping[str, Tensor]],
    *,
    candidates: int,
    seed: int,
    num_samples: int,
    start: int = 0,
) -> Iterator[RefinedBatch]:
    """Yield the best of several candidates for each sample index, in order.

    Candidate 0 is the image that `Generator.batches` draws under the same seed; the others differ
    in their noise. So one candidate changes nothing, and a further one never lowers a reward.

    Args:
        generator: draws the candidates; its `cost` counts the passes of all of them.
        policy: any decoding policy.
        reward: a function of one image and its condition, as `trained_reward` gives it. A reward of
            whole batches would compare each candidate with others of its own batch.
        conditions: of sample indices (B,), by the names that the reward reads: `labels`, or
            `condition` where images have captions.
        candidates: n, how many images to draw for each index.
        seed: key of the noise.
        num_samples: how many images to keep.
        start: first sample index.

    Raises:
        ValueError: fewer than one candidate is asked for.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    seeds = [seed, *(derive_seed(seed, "candidate", k) for k in range(1, candidates))]
    streams = [
        generator.batches(policy, seed=key, num_samples=num_samples, start=start) for key in seeds
    ]
    device = next(generator.nat.parameters()).device
    first = start
    for drawn in zip(*streams, strict=True):
        indices = torch.arange(first, first + len(drawn[0].images), device=device)
        first += len(indices)
        outcome = dict(conditions(indices))
        rewards = torch.stack(
            [reward({**outcome, "images": from_uint8(batch.images.to(device))}) for batch in drawn]
        ).cpu()
        chosen = rewards.argmax(dim=0)
        images = torch.stack([batch.images for batch in drawn])
        yield RefinedBatch(
            images=images[chosen, torch.arange(len(chosen))],
            labels=drawn[0].labels,
            rewards=rewards,
            chosen=chosen,
        )
