"""What this machine can do at this moment: the three ceilings that results are held against."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

# Large enough to reach the ceiling, small enough to be measured around every benchmark.
_SIDE = {"cpu": 512, "cuda": 8192}
_COPIED_BYTES = {"cpu": 2**25, "cuda": 2**30}
_CALLS = 200


class Calibration(NamedTuple):
    """Best of a few tries, so that a passing disturbance does not lower it."""

    flops_per_second: float
    """Square matrix product in the precision of the run, two operations a multiply-add."""
    bytes_per_second: float
    """A copy within the device's memory, bytes read and bytes written together."""
    calls_per_second: float
    """Smallest calls of PyTorch, one after another: what the host can issue."""


class Work(NamedTuple):
    """What a call asks of the machine."""

    flops: int
    bytes: int
    """Read and written by all operators, as if each went to memory."""
    calls: int
    """Operators called."""

    def floor_seconds(self, calibration: Calibration) -> float:
        """Time at the ceilings with nothing overlapped: an even measure of any kind of work."""
        return (
            self.flops / calibration.flops_per_second
            + self.bytes / calibration.bytes_per_second
            + self.calls / calibration.calls_per_second
        )


def calibrate(
    device: torch.device,
    dtype: torch.dtype,
    *,
    clock: Callable[[], float] = time.perf_counter,
    tries: int = 4,
) -> Calibration:
    """Measure the ceilings, in about a tenth of a second.

    Args:
        device: whose ceilings.
        dtype: of the matrix product.
        clock: in seconds; the one of the results that are to be held against the ceilings.
        tries: the best of so many counts.
    """
    side, num_bytes = _SIDE[device.type], _COPIED_BYTES[device.type]
    # Random numbers: products of constant ones draw less power, and on a GPU run faster by it.
    generator = torch.Generator(device).manual_seed(0)
    a, b, out = torch.randn(3, side, side, generator=generator, device=device).to(dtype)
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    one = torch.ones(1, device=device)

    def issue() -> None:
        for _ in range(_CALLS):
            one.add(1)

    def best(function: Callable[[], object]) -> float:
        function()
        seconds = []
        for _ in range(tries):
            _wait(device)
            began = clock()
            function()
            _wait(device)
            seconds.append(clock() - began)
        return min(seconds)

    return Calibration(
        flops_per_second=2 * side**3 / best(lambda: torch.mm(a, b, out=out)),
        bytes_per_second=2 * num_bytes / best(lambda: target.copy_(source)),
        calls_per_second=_CALLS / best(issue),
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
