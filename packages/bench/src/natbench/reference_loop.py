"""The published decoding loop as it stands in the paper's system: the thing to be compared with.

Nothing is shared between steps and nothing is left out: every step runs the network once without
and once with the condition, whatever the guidance scale, and the features for a step that never
comes are computed too. That makes 2T + 1 passes of the whole batch for T steps.
"""

import math
from typing import NamedTuple

import torch
from natgen import DecodingPolicy, LogitsModel
from torch import Tensor


class ReferenceGeneration(NamedTuple):
    """What the plain loop leaves."""

    tokens: Tensor
    """(B, L) int64, the last step's draw."""
    num_passes: int
    """Sample passes through the network for each image: 2T + 1."""


@torch.inference_mode()
def generate_plainly(
    model: LogitsModel,
    policy: DecodingPolicy,
    condition: Tensor,
    *,
    generator: torch.Generator,
) -> ReferenceGeneration:
    """Decodes one image for each condition, step by step (AdaNAT, arXiv 2409.00342, sec. 3.1).

    Args:
        model: the NAT.
        policy: the four numbers of each step.
        condition: B conditions.
        generator: source of all noise, on the device of the condition.
    """
    batch_size, length = len(condition), model.seq_len
    null = model.null_condition(batch_size)
    tokens = torch.full(
        (batch_size, length), model.mask_token_id, dtype=torch.int64, device=condition.device
    )
    drawn = tokens
    features, cond_logits = model(tokens, condition)
    num_passes = 1
    for timestep in range(policy.num_steps):
        parameters = policy(features, timestep)
        _, uncond_logits = model(tokens, null)

        scale = parameters["guidance_scale"][:, None, None]
        guided = cond_logits.float() + scale * (cond_logits.float() - uncond_logits.float())
        masked = tokens == model.mask_token_id
        warm = guided / parameters["sampling_temperature"][:, None, None]
        flat = torch.multinomial(warm.softmax(-1).flatten(0, 1), 1, generator=generator)
        drawn = torch.where(masked, flat.view(batch_size, length), tokens)

        log_probs = guided.log_softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)
        uniform = torch.rand(log_probs.shape, generator=generator, device=log_probs.device)
        gumbel = -(-uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log()).log()
        confidence = log_probs + parameters["remask_temperature"][:, None] * gumbel
        confidence = confidence.masked_fill(~masked, math.inf)

        num_masked = (parameters["mask_ratio"] * length).floor().long().clamp_max(length - 1)
        cut = confidence.sort(dim=-1).values.gather(-1, num_masked[:, None])
        tokens = drawn.masked_fill(confidence < cut, model.mask_token_id)

        features, cond_logits = model(tokens, condition)
        num_passes += 2
    return ReferenceGeneration(drawn, num_passes)
