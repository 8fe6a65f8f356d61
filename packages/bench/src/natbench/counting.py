"""Counts what a call does: floating-point operations, operand bytes, operators, peak memory."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from natbench.calibration import Work


class _Operators(TorchDispatchMode):
    """Sees every operator below autograd.

    Operations come from the formulas of torch's flop counter; that counter itself follows modules
    through hooks, which fail where a slice of a weight is handed to a module without gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work(0, 0, 0)
        self.peak_bytes = 0
        """Most memory that new tensors took at a time."""
        self._live_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:  # in inference mode composite operators arrive whole
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        given, made = list(_tensors((args, *kwargs.values()))), list(_tensors(result))
        # A view moves nothing.
        num_bytes = 0 if func.is_view else sum(tensor.nbytes for tensor in given + made)
        work = self.work
        self.work = Work(work.flops + flops, work.bytes + num_bytes, work.calls + 1)
        self._follow(given, made)
        return result

    def _follow(self, given: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        """Count the memory of what was made, unless it was given, until it is freed."""
        known = {_storage_id(tensor) for tensor in given}
        for tensor in made:
            if _storage_id(tensor) in known:  # a view, or written in place
                continue
            known.add(_storage_id(tensor))
            memory = tensor.untyped_storage()
            self._live_bytes += memory.nbytes()
            weakref.finalize(memory, self._free, memory.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def _free(self, num_bytes: int) -> None:
        self._live_bytes -= num_bytes


def count_work(function: Callable[[], object]) -> Work:
    """Run `function` once and count; what runs inside of compiled code is not seen."""
    seen = _Operators()
    with seen:
        function()
    return seen.work


def peak_memory(function: Callable[[], object], device: torch.device) -> int:
    """Bytes that `function` needs at its peak, beyond what was held before.

    On a GPU as its allocator tells; the replay of a CUDA graph allocates nothing. Elsewhere, the
    meta device included, it is the memory of the tensors that operators make, as long as they live:
    what an operator needs within itself is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    seen = _Operators()
    with seen:
        function()
    return seen.peak_bytes


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors of an operator's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _storage_id(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity
