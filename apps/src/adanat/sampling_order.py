"""Which items a training step sees, as a pure function of the step: resuming needs no state."""

from functools import lru_cache

import torch
from torch import Tensor

from adanat.seeding import derive_seed


def batch_indices(num_items: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices of the batch at ``step``: consecutive slices of an endless row of shuffled epochs.

    Every epoch visits each item once in an order of its own, keyed by (seed, epoch); a batch may
    span epochs, so no item is left out and batches are always full.

    Args:
        num_items: Size of the data set, >= 1.
        batch_size: Number of indices, >= 1; may exceed ``num_items``.
        step: Training step, >= 0.
        seed: Run seed, >= 0.

    Returns:
        (batch_size,) int64 in [0, num_items).
    """
    for name, value, least in (
        ("num_items", num_items, 1),
        ("batch_size", batch_size, 1),
        ("step", step, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    parts = []
    position, end = step * batch_size, (step + 1) * batch_size
    while position < end:
        epoch, offset = divmod(position, num_items)
        taken = min(num_items - offset, end - position)
        parts.append(_epoch_order(num_items, epoch, seed)[offset : offset + taken])
        position += taken
    return torch.cat(parts)


@lru_cache(maxsize=4)  # consecutive steps share an epoch; callers only ever get copies
def _epoch_order(num_items: int, epoch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch order", epoch))
    return torch.randperm(num_items, generator=generator)
