"""The engine for one process."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


class LocalEngine:
    """Plain float32 training in one process."""

    def autocast(self) -> AbstractContextManager[object]:
        """Does nothing."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Calls ``loss.backward()``."""
        loss.backward()
