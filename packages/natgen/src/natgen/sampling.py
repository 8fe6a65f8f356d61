"""The arithmetic of one decoding step: guidance, draw, confidence, re-masking. Pure functions.

Legend: B samples, L tokens, V codes; the mask token is V. Softmaxes are taken in float32.
"""

import torch
from torch import Tensor

_LOWEST_TEMPERATURE = 1e-6


def guide(cond_logits: Tensor, uncond_logits: Tensor, guidance_scale: Tensor) -> Tensor:
    """Classifier-free guidance, cond + w (cond - uncond): off at 0.

    Args:
        cond_logits: (B, L, V).
        uncond_logits: (B, L, V).
        guidance_scale: w, (B,).

    Returns:
        (B, L, V) float32.
    """
    cond = cond_logits.float()
    return torch.addcmul(cond, guidance_scale.float()[:, None, None], cond - uncond_logits.float())


def draw(guided_logits: Tensor, sampling_temperature: Tensor, uniforms: Tensor) -> Tensor:
    """Draw every token from softmax(logits / temperature), by inverting the distribution function.

    One pass and one uniform number per token, with no normalisation: the number is scaled to the
    total instead. A code of probability 0 is never drawn.

    Args:
        guided_logits: (B, L, V).
        sampling_temperature: (B,), at least 0; 0 takes the most likely code.
        uniforms: (B, L) in (0, 1).

    Returns:
        (B, L) int64 in [0, V).
    """
    logits = guided_logits.float()
    temperature = sampling_temperature.float().clamp_min(_LOWEST_TEMPERATURE)[:, None, None]
    weights = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperature).exp_()
    cumulative = weights.cumsum_(dim=-1)
    # Below the total even after rounding, as uniforms stay at or below 1 - 2^-24.
    target = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def confidence(
    guided_logits: Tensor,
    drawn: Tensor,
    masked: Tensor,
    remask_temperature: Tensor,
    gumbel: Tensor,
) -> Tensor:
    """Noisy log-probability of each drawn token; +inf where the token was visible before.

    The log-probability is that of the guided logits without the sampling temperature.

    Args:
        guided_logits: (B, L, V).
        drawn: (B, L) int64 in [0, V).
        masked: (B, L) bool, True where the input was the mask token.
        remask_temperature: scale of the noise, (B,).
        gumbel: (B, L) standard Gumbel noise.

    Returns:
        (B, L) float32.
    """
    logits = guided_logits.float()
    log_prob = logits.gather(-1, drawn.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)
    noisy = log_prob + remask_temperature.float()[:, None] * gumbel
    return noisy.masked_fill(~masked, torch.inf)


def order_confidence(reveal_rank: Tensor, masked: Tensor) -> Tensor:
    """In place of `confidence`: the sooner in a given order, the more confident.

    Args:
        reveal_rank: (L,) or (B, L) int64; 0 is revealed first.
        masked: (B, L) bool, True where the input was the mask token.

    Returns:
        (B, L) float32, +inf where the token was visible before.
    """
    return (-reveal_rank.float()).expand_as(masked).masked_fill(~masked, torch.inf)


def remask(
    drawn: Tensor,
    confidence: Tensor,
    mask_ratio: Tensor,
    mask_token_id: int,
    num_masked: Tensor | None = None,
) -> Tensor:
    """Mask the least confident tokens again.

    With m = min(floor(M r), M - 1), the tokens whose confidence lies strictly below the m-th
    smallest (counted from 0) become mask tokens. So min(m, number masked before) tokens are masked
    after, and a visible one, of infinite confidence, never is.

    Args:
        drawn: (B, L) int64, no mask token among them.
        confidence: (B, L).
        mask_ratio: r, (B,) in [0, 1]: the fraction of the M tokens.
        mask_token_id: what a masked token becomes.
        num_masked: M, (B,) int64 tokens masked at the start of the decoding; default all L.

    Returns:
        (B, L) int64.
    """
    total = drawn.shape[1] if num_masked is None else num_masked
    count = (mask_ratio.float() * total).long().clamp(max=total - 1).clamp_(min=0)
    cut = confidence.sort(dim=1).values.gather(1, count[:, None])
    return drawn.masked_fill(confidence < cut, mask_token_id)
