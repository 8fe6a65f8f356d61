"""Decoding whose cost adapts to the sample: who is complete leaves the batch, others come in.

A policy may reveal everything early, by a mask ratio below 1 / L. The steps that remain would then
change nothing, and here they are not run: the sample's place goes to the next one of the stream
(continuous batching), so that the batch stays full and the cost falls to the steps that were
needed. Since a sample's noise depends on its index alone, the images are those of `generate`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from natgen.decoding import (
    DecodingState,
    Observation,
    add_guidance,
    apply,
    defers_guidance,
    init_state,
    observe,
)
from natgen.noise import NoiseSource
from natgen.protocols import DecodingPolicy, KnowsGuidance, LogitsModel


class FinishedSample(NamedTuple):
    """One image of the stream."""

    sample_index: int
    tokens: Tensor  # (L,) int64 in [0, V)
    num_steps: int  # steps until it was complete, at most T
    num_passes: float  # its share of the sequences sent through the network, both branches counted


class _Cohort(NamedTuple):
    """Samples that came in together, and so are at the same step."""

    state: DecodingState
    passes: Tensor  # (B,) float64 on the host, each sample's share so far


@torch.no_grad()
def generate_continuously(
    model: LogitsModel,
    policy: DecodingPolicy,
    stream: Iterable[tuple[Tensor, int]],
    *,
    batch_size: int,
    noise: NoiseSource,
) -> Iterator[FinishedSample]:
    """Decode a stream of samples, each in as many steps as it needs.

    All samples of the batch share a network pass, whatever step they are at; only the first step,
    which sees masks alone, runs by itself and once per distinct condition. Each step reads one flag
    a sample on the host.

    Args:
        model: in evaluation mode.
        policy: chooses the decoding parameters, and the largest number of steps T. It is called
            once for each step that samples of the batch are at.
        stream: pairs of a condition, a label () or text features (N, C) on the model's device, and
            a sample index; read as places become free.
        batch_size: places.
        noise: the run's noise.

    Yields:
        The samples as they are completed, in no fixed order.

    Raises:
        ValueError: ``batch_size`` is below 1, or see `init_state`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    waiting = iter(stream)
    running: list[_Cohort] = []
    while True:
        places = batch_size - sum(len(cohort.passes) for cohort in running)
        stepped = _step(model, policy, running, noise) if running else []
        arriving = list(islice(waiting, places))
        if arriving:
            stepped += _step(model, policy, [_begin(model, arriving)], noise)
        if not stepped:
            return
        running = []
        for cohort, completed in zip(
            stepped, _completed(stepped, model.mask_token_id), strict=True
        ):
            yield from _finished(cohort, completed)
            if not completed.all():
                running.append(_select(cohort, ~completed))


def _begin(model: LogitsModel, arriving: Sequence[tuple[Tensor, int]]) -> _Cohort:
    conditions, indices = zip(*arriving, strict=True)
    state = init_state(model, torch.stack(conditions), torch.tensor(indices))
    return _Cohort(state, torch.zeros(len(indices), dtype=torch.float64))


def _step(
    model: LogitsModel, policy: DecodingPolicy, cohorts: Sequence[_Cohort], noise: NoiseSource
) -> list[_Cohort]:
    """One step of each cohort in a common pass: a single blank one, or none that is blank."""
    states = [cohort.state for cohort in cohorts]
    sizes = [len(state.tokens) for state in states]
    together = _join(states)
    deferred = defers_guidance(together)
    unguided = isinstance(policy, KnowsGuidance) and all(
        policy.guidance_free(state.timestep) for state in states
    )
    observation = observe(model, together, guided=not (deferred or unguided))
    chosen = [
        policy(features, state.timestep)
        for features, state in zip(observation.features.split(sizes), states, strict=True)
    ]
    if deferred:
        scale = torch.cat([parameters["guidance_scale"] for parameters in chosen])
        observation = add_guidance(model, together, observation, scale)
    share = observation.num_rows / len(together.tokens)
    stepped = []
    for cohort, part, parameters in zip(cohorts, _split(observation, sizes), chosen, strict=True):
        last = cohort.state.timestep + 1 == policy.num_steps
        state = apply(cohort.state, part, parameters, noise, last=last)
        stepped.append(_Cohort(state, cohort.passes + share))
    return stepped


def _join(states: Sequence[DecodingState]) -> DecodingState:
    """All samples as one state. Its timestep only says whether they are blank."""
    first = states[0]
    if len(states) == 1:
        return first
    return first._replace(
        tokens=torch.cat([state.tokens for state in states]),
        drawn=torch.cat([state.drawn for state in states]),
        condition=torch.cat([state.condition for state in states]),
        sample_indices=torch.cat([state.sample_indices for state in states]),
    )


def _split(observation: Observation, sizes: Sequence[int]) -> Iterator[Observation]:
    """What each cohort sees of a common pass; the passes are counted for all together."""
    parts = [part.split(sizes) for part in observation[:3]]
    for features, cond_logits, uncond_logits in zip(*parts, strict=True):
        yield Observation(features, cond_logits, uncond_logits, num_rows=0)


def _completed(cohorts: Sequence[_Cohort], mask_token_id: int) -> list[Tensor]:
    """For each cohort which of its samples have no mask left, (B,) bool on the host."""
    masked = torch.cat([cohort.state.tokens == mask_token_id for cohort in cohorts]).any(dim=1)
    return list((~masked).cpu().split([len(cohort.passes) for cohort in cohorts]))


def _finished(cohort: _Cohort, completed: Tensor) -> Iterator[FinishedSample]:
    done = _select(cohort, completed)
    for index, tokens, passes in zip(
        done.state.sample_indices.tolist(), done.state.drawn, done.passes.tolist(), strict=True
    ):
        yield FinishedSample(index, tokens, done.state.timestep, passes)


def _select(cohort: _Cohort, chosen: Tensor) -> _Cohort:
    """The samples that ``chosen``, (B,) bool on the host, names."""
    state = cohort.state
    rows = chosen.nonzero().squeeze(1).to(state.tokens.device)
    return _Cohort(
        state._replace(
            tokens=state.tokens[rows],
            drawn=state.drawn[rows],
            condition=state.condition[rows],
            sample_indices=state.sample_indices[rows],
        ),
        cohort.passes[chosen],
    )
