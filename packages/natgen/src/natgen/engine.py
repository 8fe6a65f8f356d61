"""The training loop's engine for one process; `accelerate` can stand in for it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class LocalEngine:
    """One process.

    Args:
        device_type: where the model is, such as "cuda"; read where ``dtype`` is bfloat16.
        dtype: of the forward pass: float32 for the weights' own, or bfloat16 by autocast.
    """

    def __init__(self, device_type: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        if dtype not in (torch.float32, torch.bfloat16):  # float16 would need a loss scale
            raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
        self._device_type = device_type
        self._dtype = dtype

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
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device_type, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""
        loss.backward()

    def gather(self, tensor: Tensor) -> Tensor:
        """Of one process, the tensor itself."""
        return tensor
