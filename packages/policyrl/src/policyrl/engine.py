"""The one-process engine."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class LocalEngine:
    """One process, full precision (`policyrl.protocols.Engine`)."""

    @property
    def num_processes(self) -> int:
        """One."""
        return 1

    @property
    def process_index(self) -> int:
        """The first, of one."""
        return 0

    def autocast(self) -> AbstractContextManager[object]:
        """No change of precision."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        torch.autograd.backward(loss)

    def gather(self, tensor: Tensor) -> Tensor:
        """Of one process, the tensor itself."""
        return tensor
