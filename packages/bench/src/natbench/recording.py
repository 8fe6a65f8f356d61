"""Runs one benchmark and notes beside its times what they mean."""

from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from natbench.calibration import Calibration, calibrate
from natbench.counting import count_work, peak_memory
from natbench.workload import Workload


def run_benchmark(
    benchmark: BenchmarkFixture,
    workload: Workload,
    function: Callable[[], object],
    *,
    unit: str,
    count: int,
    autocast: bool = True,
    counted: Callable[[], object] | None = None,
) -> None:
    """Time `function`, and note its rate, its work, and its share of what the machine can do.

    The ceilings are measured right before and right after; the better of both counts.

    Args:
        benchmark: pytest-benchmark's fixture.
        workload: precision and device.
        function: returns without waiting for the device.
        unit: what a call makes, such as "images".
        count: how many of them.
        autocast: run it in the asked precision; not for what chooses its precision itself.
        counted: does the same work in single calls, where `function` hides them and their memory
            in a CUDA graph or in compiled code.
    """
    call = workload.timed(function, autocast=autocast)
    before = calibrate(workload.device, workload.dtype, clock=workload.clock)
    benchmark(call)
    after = calibrate(workload.device, workload.dtype, clock=workload.clock)
    ceilings = Calibration(*map(max, before, after))
    seen = call if counted is None else workload.timed(counted, autocast=autocast)
    work = count_work(seen)
    benchmark.extra_info.update(
        batch_size=count,
        calibration=ceilings._asdict(),
        work=work._asdict(),
        peak_bytes=peak_memory(seen, workload.device),
    )
    if benchmark.stats is None:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        {
            f"{unit}_per_second": count / seconds,
            "flops_per_second": work.flops / seconds,
            "share_of_matrix_ceiling": work.flops / seconds / ceilings.flops_per_second,
            "share_of_copy_ceiling": work.bytes / seconds / ceilings.bytes_per_second,
        }
    )
