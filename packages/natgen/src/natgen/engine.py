"""The training loop's engine for one process; `accelerate` can stand in for it."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


class LocalEngine:
    """One process, the model's own precision."""

    def autocast(self) -> AbstractContextManager[object]:
        """Around the forward pass: nothing."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""
        loss.backward()
