"""The engine for one process."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class LocalEngine:
    """Training in one process.

    Args:
        bf16_on: the tokenizer's type of device, such as "cuda", for forward passes in bfloat16 by
            autocast; None for float32. Quantizer and losses are in float32 in any case.
    """

    def __init__(self, bf16_on: str | None = None) -> None:
        self._bf16_on = bf16_on

    def autocast(self) -> AbstractContextManager[object]:
        """Around the forward pass."""
        return (
            nullcontext()
            if self._bf16_on is None
            else torch.autocast(self._bf16_on, torch.bfloat16)
        )

    def backward(self, loss: Tensor) -> None:
        """Calls ``loss.backward()``."""
        loss.backward()
