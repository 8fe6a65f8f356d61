"""The default engine: one process, the precision of the parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class LocalEngine:
    """Runs updates in this process, without autocast."""

    def autocast(self) -> AbstractContextManager[object]:
        """Returns a context that changes nothing."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a scalar loss."""
        torch.autograd.backward(loss)

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensor as it is."""
        return tensor
