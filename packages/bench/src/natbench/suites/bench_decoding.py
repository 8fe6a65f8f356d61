"""One decoding step and whole generations, from conditions to tokens."""

import natgen
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from natbench.recording import record_rate
from natbench.reference_loop import generate_plainly
from natbench.workload import Workload


def bench_step(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """A step in the middle: both branches, the draw, the re-masking."""
    schedule = workload.schedule(num_steps=4)
    indices = torch.arange(len(workload.labels), device=workload.device)
    with torch.inference_mode():
        first = natgen.init_state(workload.nat, workload.labels, indices)
        second, _ = natgen.step(workload.nat, schedule, first, workload.noise)
        benchmark(
            workload.timed(lambda: natgen.step(workload.nat, schedule, second, workload.noise))
        )
    record_rate(benchmark, "samples", len(indices))


def _bench_generation(
    benchmark: BenchmarkFixture, workload: Workload, policy: natgen.DecodingPolicy
) -> None:
    indices = torch.arange(len(workload.labels), device=workload.device)

    def generate() -> natgen.Generation:
        return natgen.generate(
            workload.nat, policy, workload.labels, sample_indices=indices, noise=workload.noise
        )

    benchmark(workload.timed(generate))
    benchmark.extra_info["passes_per_image"] = float(generate().num_passes)
    record_rate(benchmark, "images", len(indices))


def bench_generation_static(
    benchmark: BenchmarkFixture, workload: Workload, num_steps: int
) -> None:
    """The hand-made schedule."""
    _bench_generation(benchmark, workload, workload.schedule(num_steps))


def bench_generation_adaptive(
    benchmark: BenchmarkFixture, workload: Workload, num_steps: int
) -> None:
    """A policy network chooses at every step."""
    _bench_generation(benchmark, workload, workload.policy(num_steps))


def bench_generation_plain(benchmark: BenchmarkFixture, workload: Workload, num_steps: int) -> None:
    """The published loop of 2T + 1 passes with the same policy network."""
    policy = workload.policy(num_steps)
    generator = torch.Generator(workload.device).manual_seed(0)

    def generate() -> object:
        return generate_plainly(workload.nat, policy, workload.labels, generator=generator)

    benchmark(workload.timed(generate))
    benchmark.extra_info["passes_per_image"] = 2.0 * num_steps + 1
    record_rate(benchmark, "images", len(workload.labels))
