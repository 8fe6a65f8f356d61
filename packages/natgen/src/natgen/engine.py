"""The training loop's engine for one process; `accelerate` can stand in for it."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


class LocalEngine:
    """One process, the model's own precision."""

    @property
    def num_processes(self) -> int:
        """One."""
        return 1

    @property
    def process_index(self) -> int:
        """The first, of one."""
        return 0

    def autocast(self) -> AbstractContextManager[object]:
        """Around the forward pass: nothing."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""
        loss.backward()

    def gather(self, tensor: Tensor) -> Tensor:
        """Of one process, the tensor itself."""
        return tensor
