"""Parallel decoding: a typed state and plain functions of (model, policy, state, noise).

A step looks at the network's output (`observe`), lets the policy choose the four decoding
parameters, draws every masked token and masks the least confident of them again (`apply`). T steps
take exactly T network passes. Published AdaNAT takes 2T + 1; here both branches of the guidance
share one batch (on the CPU, unguided samples skip theirs), the first step (which sees masks alone)
runs once per distinct condition, and no pass follows the last draw.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from natgen.first_step import first_step_output
from natgen.noise import DRAW_STREAM, NoiseSource
from natgen.protocols import ChecksCondition, DecodingPolicy, KnowsGuidance, LogitsModel
from natgen.reveal import check_initial_tokens, reveal_ranks
from natgen.sampling import confidence, draw, guide, order_confidence, remask
from natgen.schedules import COMPONENTS

_CACHED_LOGITS = 2**18
"""Logits that are worked on at once on a CPU core: 1 MB, which its cache holds."""


class DecodingState(NamedTuple):
    """Where the decoding of a batch stands before step ``timestep``."""

    tokens: Tensor  # (B, L) int64, the next input; at timestep 0 mask tokens, or what was given
    drawn: Tensor  # (B, L) int64, the last full draw; at timestep 0 as ``tokens``
    condition: Tensor  # (B,) labels or (B, N, C) text features
    sample_indices: Tensor  # (B,) int64, the samples' keys to the noise
    timestep: int  # steps done
    num_rows: int  # sequences sent through the network so far, both branches counted
    num_masked: Tensor | None = None  # (B,) int64 mask tokens at the start; None: all L
    reveal_rank: Tensor | None = None  # (L,) or (B, L) int64; None: by confidence

    @property
    def is_blank(self) -> bool:
        """Whether every sample sees masks alone, and so nothing but its condition."""
        return self.timestep == 0 and self.num_masked is None


class Observation(NamedTuple):
    """What one network pass shows."""

    features: Tensor  # (B, N, D) of the conditional branch; N = L unless codes share positions
    cond_logits: Tensor  # (B, L, V)
    uncond_logits: Tensor  # (B, L, V); the conditional ones where nothing guides
    num_rows: int  # sequences sent through the network for it


class StepRecord(NamedTuple):
    """One step of a recorded generation."""

    tokens: Tensor  # (B, L) int64 after re-masking; after the last step the full draw
    drawn: Tensor  # (B, L) int64, what the image would be if decoding stopped here


class Generation(NamedTuple):
    """A finished batch."""

    tokens: Tensor  # (B, L) int64 in [0, V), the last step's full draw
    parameters: Tensor  # (B, T, 4) as the policy chose them, in the order of COMPONENTS
    steps: tuple[StepRecord, ...]  # T records, or none without ``record``
    num_passes: float  # sequences sent through the network per sample, as counted


def init_state(
    model: LogitsModel,
    condition: Tensor,
    sample_indices: Tensor,
    *,
    initial_tokens: Tensor | None = None,
    reveal_order: Tensor | None = None,
) -> DecodingState:
    """All tokens masked, or those that ``initial_tokens`` masks.

    Args:
        model: asked for lengths and ids, and to check the condition if it can.
        condition: (B,) labels or (B, N, C) text features, on the model's device.
        sample_indices: (B,) int64, at least 0: which noise each sample gets.
        initial_tokens: (B, L) or (B, h, w) int64; codes are kept as they are, mask tokens decoded.
            Mask ratios then are fractions of the tokens that are masked here.
        reveal_order: (L,) or (B, L) int64; raster positions in the order in which they are
            revealed, such as `halton_order`, in place of the most confident first.

    Raises:
        ValueError: sizes differ, the batch is empty, or the model refuses the condition.
    """
    size = condition.shape[0] if condition.ndim else 0
    if size == 0 or tuple(sample_indices.shape) != (size,):
        raise ValueError(
            "need one sample index for each of at least one condition, got shapes "
            f"{tuple(sample_indices.shape)} and {tuple(condition.shape)}"
        )
    if isinstance(model, ChecksCondition):
        model.check_condition(condition)
    device, length = condition.device, model.seq_len
    num_masked = ranks = None
    if initial_tokens is None:
        tokens = torch.full((size, length), model.mask_token_id, dtype=torch.int64, device=device)
    else:
        tokens = check_initial_tokens(model, initial_tokens, size).to(device)
        num_masked = (tokens == model.mask_token_id).sum(dim=1)
    if reveal_order is not None:
        ranks = reveal_ranks(reveal_order, length, size).to(device)
    indices = sample_indices.to(device)
    return DecodingState(tokens, tokens, condition, indices, 0, 0, num_masked, ranks)


def observe(model: LogitsModel, state: DecodingState, *, guided: bool = True) -> Observation:
    """Run both branches in one batch; the first step runs each distinct condition once.

    Args:
        model: the network.
        state: as of the step to come.
        guided: whether the unconditional branch is needed.
    """
    if state.is_blank:
        return _observe_blank(model, state, guided)
    if not guided:
        features, logits = model(state.tokens, state.condition)
        return Observation(features, logits, logits, len(state.tokens))
    size = len(state.tokens)
    features, logits = model(
        torch.cat([state.tokens, state.tokens]),
        torch.cat([state.condition, model.null_condition(size)]),
    )
    return Observation(features[:size], logits[:size], logits[size:], 2 * size)


def defers_guidance(state: DecodingState) -> bool:
    """Whether to run the unconditional branch only after the policy has chosen the scales.

    On the CPU, where reading them costs nothing, only guided samples then run it. On a GPU the
    wait for the scales would cost more than the pass, and both branches share one batch.
    """
    return state.tokens.device.type == "cpu"


def add_guidance(
    model: LogitsModel, state: DecodingState, observation: Observation, scale: Tensor
) -> Observation:
    """Complete an unguided observation for the samples whose guidance scale is not 0.

    Args:
        model: the network.
        state: the observation's state.
        observation: made with ``guided=False``.
        scale: guidance scales (B,), read on the host.
    """
    rows = scale.nonzero().squeeze(1)
    if not len(rows):
        return observation
    if state.is_blank:  # masks alone: one row serves all samples
        output = first_step_output(model, model.null_condition(1))
        return observation._replace(
            uncond_logits=output.logits.expand_as(observation.cond_logits),
            num_rows=observation.num_rows + output.num_rows,
        )
    logits = model(state.tokens[rows], model.null_condition(len(rows)))[1]
    all_guided = len(rows) == len(state.tokens)
    return observation._replace(
        uncond_logits=logits if all_guided else observation.cond_logits.index_copy(0, rows, logits),
        num_rows=observation.num_rows + len(rows),
    )


def apply(
    state: DecodingState,
    observation: Observation,
    parameters: Mapping[str, Tensor],
    noise: NoiseSource,
    *,
    last: bool = False,
) -> DecodingState:
    """Draw the masked tokens and mask the least confident of them again.

    Args:
        state: before the step.
        observation: of that state.
        parameters: (B,) tensors by the names of `COMPONENTS`.
        noise: source of the step's numbers.
        last: reveal everything; mask ratio and re-mask temperature then have no effect.
    """
    mask_token_id = observation.cond_logits.shape[-1]  # one past the last code
    masked = state.tokens == mask_token_id
    by_confidence = not last and state.reveal_rank is None
    length, t = state.tokens.shape[1], state.timestep
    if by_confidence:
        uniforms, gumbel = noise.step(state.sample_indices, t, length)
    else:  # nothing reads the Gumbel noise
        uniforms = gumbel = noise.uniform(state.sample_indices, t, DRAW_STREAM, length)
    proposals, certainty = torch.empty_like(state.tokens), torch.empty_like(uniforms)
    for part in _cached_parts(observation.cond_logits):
        chosen = {name: values[part[0]] for name, values in parameters.items()}
        guided = guide(
            observation.cond_logits[part], observation.uncond_logits[part], chosen["guidance_scale"]
        )
        proposals[part] = draw(guided, chosen["sampling_temperature"], uniforms[part])
        if by_confidence:
            noisiness = chosen["remask_temperature"]
            certainty[part] = confidence(
                guided, proposals[part], masked[part], noisiness, gumbel[part]
            )
    tokens = drawn = torch.where(masked, proposals, state.tokens)
    if not last:
        if state.reveal_rank is not None:
            certainty = order_confidence(state.reveal_rank, masked)
        tokens = remask(drawn, certainty, parameters["mask_ratio"], mask_token_id, state.num_masked)
    return state._replace(
        tokens=tokens,
        drawn=drawn,
        timestep=t + 1,
        num_rows=state.num_rows + observation.num_rows,
    )


def step(
    model: LogitsModel, policy: DecodingPolicy, state: DecodingState, noise: NoiseSource
) -> tuple[DecodingState, Mapping[str, Tensor]]:
    """One decoding step; also returns the parameters that the policy chose."""
    t = state.timestep
    deferred = defers_guidance(state)
    unguided = isinstance(policy, KnowsGuidance) and policy.guidance_free(t)
    observation = observe(model, state, guided=not (deferred or unguided))
    parameters = policy(observation.features, t)
    if deferred:
        observation = add_guidance(model, state, observation, parameters["guidance_scale"])
    last = t + 1 == policy.num_steps
    return apply(state, observation, parameters, noise, last=last), parameters


@torch.no_grad()
def generate(
    model: LogitsModel,
    policy: DecodingPolicy,
    condition: Tensor,
    *,
    sample_indices: Tensor,
    noise: NoiseSource,
    initial_tokens: Tensor | None = None,
    reveal_order: Tensor | None = None,
    record: bool = False,
) -> Generation:
    """Decode a batch, from masks alone or from the given tokens of an image to edit.

    Args:
        model: in evaluation mode.
        policy: chooses the decoding parameters, and the number of steps T.
        condition: (B,) labels or (B, N, C) text features, on the model's device.
        sample_indices: (B,) int64; a sample's noise depends on its index, never on the batch.
        noise: the run's noise.
        initial_tokens: (B, L) or (B, h, w) int64: codes to keep and mask tokens to decode, for
            inpainting, and with another label for editing. Mask ratios then are fractions of the
            tokens that are masked here, so that every policy serves.
        reveal_order: (L,) or (B, L) int64, such as `halton_order`; re-mask temperatures then have
            no effect.
        record: keep the tokens of every step.

    Raises:
        ValueError: see `init_state`.
    """
    state = init_state(
        model,
        condition,
        sample_indices,
        initial_tokens=initial_tokens,
        reveal_order=reveal_order,
    )
    chosen, records = [], []
    for _ in range(policy.num_steps):
        state, parameters = step(model, policy, state, noise)
        chosen.append(torch.stack([parameters[name] for name in COMPONENTS], dim=-1))
        if record:
            records.append(StepRecord(state.tokens, state.drawn))
    return Generation(
        tokens=state.drawn,
        parameters=torch.stack(chosen, dim=1),
        steps=tuple(records),
        num_passes=state.num_rows / len(state.tokens),
    )


def _observe_blank(model: LogitsModel, state: DecodingState, guided: bool) -> Observation:
    """The first step: with masks alone, the output depends on nothing but the condition."""
    size = len(state.tokens)
    if state.condition.ndim == 1:
        distinct, inverse = torch.unique(state.condition, return_inverse=True)
    else:  # captions hardly ever repeat, and comparing their features costs
        distinct, inverse = state.condition, torch.arange(size, device=state.condition.device)
    rows = torch.cat([distinct, model.null_condition(1)]) if guided else distinct
    output = first_step_output(model, rows)
    cond_logits = output.logits[inverse]
    uncond_logits = output.logits[-1:].expand_as(cond_logits) if guided else cond_logits
    return Observation(output.features[inverse], cond_logits, uncond_logits, output.num_rows)


def _cached_parts(logits: Tensor) -> list[tuple[slice, slice]]:
    """Samples and tokens of a batch (B, L, V): all on a GPU, on the CPU few at a time.

    Their logits then stay in the cores' caches from the guidance to the confidence, and no memory
    is asked for that the system would have to clear first.
    """
    size, length, num_codes = logits.shape
    if logits.device.type == "cpu":
        tokens = max(1, _CACHED_LOGITS * torch.get_num_threads() // num_codes)
        size, length = max(1, tokens // length), min(tokens, length)
    return [
        (slice(row, row + size), slice(column, column + length))
        for row in range(0, logits.shape[0], size)
        for column in range(0, logits.shape[1], length)
    ]
