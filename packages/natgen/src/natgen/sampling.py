"""The arithmetic of one decoding step: guidance, draw, confidence, re-masking. Pure functions.

Legend: B samples, L tokens, V codes; the mask token is V. Softmaxes are taken in float32.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_LOWEST_TEMPERATURE = 1e-6
_LARGEST_BLOCK = 128


def guide(cond_logits: Tensor, uncond_logits: Tensor, guidance_scale: Tensor) -> Tensor:
    """Classifier-free guidance, cond + w (cond - uncond): off at 0.

    Args:
        cond_logits: (B, L, V).
        uncond_logits: (B, L, V).
        guidance_scale: w, (B,).

    Returns:
        (B, L, V) float32.
    """
    weight = (1 + guidance_scale.float())[:, None, None]
    return torch.lerp(uncond_logits.float(), cond_logits.float(), weight)  # one pass over memory


def draw(guided_logits: Tensor, sampling_temperature: Tensor, uniforms: Tensor) -> Tensor:
    """Draw every token from softmax(logits / temperature), by inverting the distribution function.

    One uniform number per token finds first a block of codes, then the code in it: sums over blocks
    cost a fraction of a running sum over all codes. A code of probability 0 is never drawn.

    Args:
        guided_logits: (B, L, V).
        sampling_temperature: (B,), at least 0; 0 takes the most likely code.
        uniforms: (B, L) in (0, 1).

    Returns:
        (B, L) int64 in [0, V).

    Raises:
        RuntimeError: logits that are not finite; on a GPU, in its own time. (Single ones of
            minus infinity are allowed.)
    """
    temperature = sampling_temperature.float().clamp_min(_LOWEST_TEMPERATURE)[:, None, None]
    weights = (guided_logits.float() / temperature).softmax(dim=-1)
    size = _block_size(weights.shape[-1])
    blocks = weights.unflatten(-1, (-1, size))
    ends = blocks.sum(dim=-1).cumsum_(dim=-1)
    torch._assert_async(ends[..., -1].isfinite().all(), "logits are NaN or infinite")
    # Below the total even after rounding, as uniforms stay at or below 1 - 2^-24.
    target = uniforms.unsqueeze(-1) * ends[..., -1:]
    block = torch.searchsorted(ends, target, right=True)
    start = F.pad(ends, (1, 0)).gather(-1, block)
    chosen = blocks.gather(-2, block.unsqueeze(-1).expand(*block.shape, size)).squeeze(-2)
    cumulative = chosen.cumsum(dim=-1)
    # Likewise below the block's own sum, which is rounded otherwise than the blocks' ends are.
    rest = torch.minimum(target - start, cumulative[..., -1:] * (1 - 2**-24))
    code = torch.searchsorted(cumulative, rest, right=True)
    return (block * size + code).squeeze(-1)


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
    # On the CPU twice as fast as logsumexp, of which one number a token would be enough.
    log_probs = guided_logits.float().log_softmax(dim=-1)
    log_prob = log_probs.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
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


def _block_size(num_codes: int) -> int:
    """The divisor of V nearest to its root, which makes both searches short."""
    root = num_codes**0.5
    divisors = (n for n in range(1, _LARGEST_BLOCK + 1) if num_codes % n == 0)
    return min(divisors, key=lambda n: abs(n - root))
