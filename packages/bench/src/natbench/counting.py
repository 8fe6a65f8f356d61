"""Counts what a call does: floating-point operations, operand bytes, operators, peak memory."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from natbench.calibration import Work

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class _WorkCounter(TorchDispatchMode):
    """Sees every operator below autograd.

    Operations come from the formulas of torch's flop counter; that counter itself follows modules
    through hooks, which fail where a slice of a weight is handed to a module without gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work(0, 0, 0)

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
        # A view moves nothing.
        operands = () if func.is_view else (*args, *kwargs.values(), result)
        work = self.work
        self.work = Work(work.flops + flops, work.bytes + _num_bytes(operands), work.calls + 1)
        return result


def count_work(function: Callable[[], object]) -> Work:
    """Run `function` once and count; what runs inside of compiled code is not seen."""
    counter = _WorkCounter()
    with counter:
        function()
    return counter.work


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `function` needs at its peak, beyond what was held before.

    On the CPU it is the growth of the resident memory, which Linux alone tells, and which misses
    what fits into memory that the process had freed and kept.

    Returns:
        None where the system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _CLEAR.write_text("5")  # resets the high-water mark
    except OSError:
        function()
        return None
    before = _high_water()
    function()
    return _high_water() - before


def _high_water() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _num_bytes(values: Iterable[object]) -> int:
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, list | tuple):
            total += _num_bytes(value)
    return total
