"""The training objective, and how it depends on the mask ratio."""

import torch
from torch import Tensor
from torch.nn import functional as F

_IGNORED = -100  # cross_entropy's marker for positions outside the loss


def masked_scores(
    logits: Tensor, tokens: Tensor, masked: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Sums over each sample's masked positions.

    Args:
        logits: (B, L, V).
        tokens: (B, L) int64, the true codes.
        masked: (B, L) bool.
        label_smoothing: in [0, 1).

    Returns:
        (B, 3) float32: the cross-entropy, which alone carries a gradient; how many of the most
        likely codes are right; and the number of the positions.
    """
    targets = tokens.masked_fill(~masked, _IGNORED)
    loss = F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=_IGNORED,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    hits = logits.detach().argmax(dim=-1) == targets
    return torch.stack([loss.view(targets.shape), hits.float(), masked.float()], dim=-1).sum(dim=1)


def score_metrics(
    scores: Tensor, length: int, num_bins: int, **scalars: Tensor
) -> dict[str, float]:
    """Numbers to log, by one transfer from the device.

    Args:
        scores: (B, 3) of `masked_scores`, at least one masked position a sample.
        length: tokens L of a sample.
        num_bins: equal parts of the mask ratios (0, 1], each with its upper bound.
        scalars: more to transfer along.

    Returns:
        "loss", "accuracy" and "mask_ratio" of the batch, the scalars, and for each part of the mask
        ratios that has samples "loss_mask_LOW_HIGH" and "accuracy_mask_LOW_HIGH", with the bounds
        in per cent.
    """
    part = ((scores[:, 2].long() * num_bins - 1) // length).clamp_(0, num_bins - 1)
    sums = scores.new_zeros(num_bins, 3).index_add_(0, part, scores)
    others = [value.detach().reshape(1).float() for value in scalars.values()]
    values = torch.cat([*others, sums.flatten()]).tolist()
    by_part = [values[len(others) + 3 * part :][:3] for part in range(num_bins)]
    loss, hits, masked = (sum(column) for column in zip(*by_part, strict=True))
    metrics = {
        "loss": loss / masked,
        "accuracy": hits / masked,
        "mask_ratio": masked / (len(scores) * length),
        **dict(zip(scalars, values, strict=False)),
    }
    for index, (loss, hits, masked) in enumerate(by_part):
        if masked:
            bounds = f"{100 * index / num_bins:.0f}_{100 * (index + 1) / num_bins:.0f}"
            metrics[f"loss_mask_{bounds}"] = loss / masked
            metrics[f"accuracy_mask_{bounds}"] = hits / masked
    return metrics
