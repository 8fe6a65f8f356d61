"""The first step's network output: masks alone, so a function of nothing but the condition."""

from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from natgen.protocols import ChecksCondition, GridLogitsModel, LogitsModel


class FirstStepOutput(NamedTuple):
    """What the network says of a fully masked grid under n conditions."""

    features: Tensor  # (n, N, D); N = L unless codes share positions
    logits: Tensor  # (n, L, V)
    num_rows: int  # sequences sent through the network for it


class FirstStepCache:
    """A model that keeps its answers to the fully masked grid, across batches.

    Give it to `generate`, `DecodingEnvironment` or `generate_continuously` in place of the model:
    where the same conditions come again and again, as labels do in an evaluation and in a policy
    training, the first step then costs no network pass. The unconditional answer is kept once and
    for all.

    A condition is recognised by its bytes, read on the host: once a batch, before the first step.
    What has been kept stays, and what comes when the memory is full is computed each time: for
    labels that come in turns this serves more of them than replacing the oldest would. A kept row
    may have been computed in a batch of another size, so samples are equal up to rounding, as they
    are between batch sizes.

    Only the owner of the weights knows when they change: call `clear` then, and when the precision
    (autocast, dtype, device) changes.

    Args:
        model: in evaluation mode.
        max_bytes: memory for the rows, beside the unconditional one. A row takes N D + L V numbers:
            1.8 MB in float32 for the published L at 256 pixels.
    """

    def __init__(self, model: GridLogitsModel, *, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self._model = model
        self._max_bytes = max_bytes
        self._rows: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._num_bytes = 0

    @property
    def seq_len(self) -> int:
        """Number of image tokens L."""
        return self._model.seq_len

    @property
    def mask_token_id(self) -> int:
        """Id of the mask token."""
        return self._model.mask_token_id

    @property
    def grid_size(self) -> tuple[int, int]:
        """(height, width) of the token grid."""
        return self._model.grid_size

    @property
    def num_bytes(self) -> int:
        """Memory of the kept rows, without the unconditional one."""
        return self._num_bytes

    def __len__(self) -> int:
        """Number of conditions whose output is kept, the unconditional one among them."""
        return len(self._rows)

    def __call__(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The model itself: see `LogitsModel`."""
        return self._model(tokens, condition)

    def null_condition(self, batch_size: int) -> Tensor:
        """The condition of the unconditional branch, ``batch_size`` rows."""
        return self._model.null_condition(batch_size)

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError for a condition that the model refuses, if it checks any."""
        if isinstance(self._model, ChecksCondition):
            self._model.check_condition(condition)

    def clear(self) -> None:
        """Forget everything. To be called whenever the weights or the precision have changed."""
        self._rows.clear()
        self._num_bytes = 0

    def first_step(self, condition: Tensor) -> FirstStepOutput:
        """The output for the fully masked grid; runs the network for what is not kept.

        Args:
            condition: n labels (n,) or text features (n, N, C).
        """
        null = self._model.null_condition(1)
        condition = condition.to(null.dtype)  # as the model does, or equal ones would differ
        keys, (null_key,) = _keys(condition), _keys(null)
        fresh = {key: row for row, key in enumerate(keys) if key not in self._rows}
        rows: dict[bytes, tuple[Tensor, Tensor]] = {}
        if fresh:
            wanted = torch.tensor(list(fresh.values()), device=condition.device)
            output = _run(self._model, condition[wanted])
            rows = dict(zip(fresh, zip(output.features, output.logits, strict=True), strict=True))
            for key, row in rows.items():
                self._keep(key, row, free=key == null_key)
        found = [rows[key] if key in rows else self._rows[key] for key in keys]
        features, logits = (torch.stack(parts) for parts in zip(*found, strict=True))
        return FirstStepOutput(features, logits, len(fresh))

    def _keep(self, key: bytes, row: tuple[Tensor, Tensor], *, free: bool) -> None:
        size = sum(part.numel() * part.element_size() for part in row)
        if not free:
            if self._num_bytes + size > self._max_bytes:
                return
            self._num_bytes += size
        # Copies: a view would hold the whole batch in memory.
        features, logits = row
        self._rows[key] = features.clone(), logits.clone()


def first_step_output(model: LogitsModel, condition: Tensor) -> FirstStepOutput:
    """Run each condition once on the fully masked grid, or look it up where the model keeps it.

    Args:
        model: the network, or a `FirstStepCache` of it.
        condition: n labels (n,) or text features (n, N, C), best without repetitions.
    """
    return (
        model.first_step(condition) if isinstance(model, FirstStepCache) else _run(model, condition)
    )


def _run(model: LogitsModel, condition: Tensor) -> FirstStepOutput:
    size = len(condition)
    tokens = torch.full((1, model.seq_len), model.mask_token_id, device=condition.device)
    features, logits = model(tokens.expand(size, -1), condition)
    return FirstStepOutput(features, logits, size)


def _keys(condition: Tensor) -> list[bytes]:
    """One key a row: 16 bytes of a hash, since text features are large."""
    rows = condition.detach().reshape(len(condition), -1).contiguous().view(torch.uint8).cpu()
    return [blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in rows]
