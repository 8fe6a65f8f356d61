"""The training loop's engine for one process; `accelerate` can stand in for it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class LocalEngine:
    """One process.

    Args:
        bf16_on: the model's type of device, such as "cuda", for forward passes in bfloat16 by
            autocast; None for the weights' own precision.
    """

    def __init__(self, bf16_on: str | None = None) -> None:
        self._bf16_on = bf16_on

    @property
    def num_processes(self) -> int:
        """One."""
        return 1

    @property
    def process_index(self) -> int:
        """The first, of one."""
        return 0

    def autocast(self) -> AbstractContextManager[object]:
        """Around the forward pass."""
        return (
            nullcontext()
            if self._bf16_on is None
            else torch.autocast(self._bf16_on, torch.bfloat16)
        )

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""
        loss.backward()

    def gather(self, tensor: Tensor) -> Tensor:
        """Of one process, the tensor itself."""
        return tensor
