"""One decoding step and whole generations, from conditions to tokens."""

from collections.abc import Callable

import natgen
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from vqtok import Tokenizer

from natbench.recording import run_benchmark
from natbench.reference_loop import generate_plainly
from natbench.workload import Workload

_FIRST_STEP_BYTES = 2**30
_BATCHES = 4


def bench_step(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """A step in the middle: both branches, the draw, the re-masking."""
    schedule = workload.schedule(num_steps=4)
    with torch.no_grad():
        state = _second_state(workload)
        run_benchmark(
            benchmark,
            workload,
            lambda: natgen.step(workload.nat, schedule, state, workload.noise),
            unit="samples",
            count=len(state.tokens),
        )


def bench_draw(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """What follows the passes of that step: guidance, noise, the draw, the re-masking."""
    with torch.no_grad():
        state = _second_state(workload)
        observation = natgen.observe(workload.nat, state)
        parameters = workload.schedule(num_steps=4)(observation.features, state.timestep)
        run_benchmark(
            benchmark,
            workload,
            lambda: natgen.apply(state, observation, parameters, workload.noise),
            unit="samples",
            count=len(state.tokens),
        )


def _second_state(workload: Workload) -> natgen.DecodingState:
    indices = torch.arange(len(workload.labels), device=workload.device)
    first = natgen.init_state(workload.nat, workload.labels, indices)
    second, _ = natgen.step(workload.nat, workload.schedule(4), first, workload.noise)
    return second


@pytest.mark.parametrize("guidance_scale", [0.0, 3.0], ids=["free", "guided"])
def bench_generation(
    benchmark: BenchmarkFixture,
    workload: Workload,
    generator_name: str,
    num_steps: int,
    guidance_scale: float,
) -> None:
    """Each generator with the hand-made schedule, with and without guidance."""
    schedule = natgen.published(num_steps, guidance_scale=guidance_scale)
    _generate(benchmark, workload, workload.generator(generator_name), schedule)


def bench_generation_adaptive(
    benchmark: BenchmarkFixture, workload: Workload, num_steps: int
) -> None:
    """A policy network chooses at every step."""
    _generate(benchmark, workload, workload.nat, workload.policy(num_steps))


def bench_generation_warm(benchmark: BenchmarkFixture, workload: Workload, num_steps: int) -> None:
    """The same where the first step's outputs are kept from earlier batches."""
    model = natgen.FirstStepCache(workload.nat, max_bytes=_FIRST_STEP_BYTES)
    _generate(benchmark, workload, model, workload.policy(num_steps))


def bench_generation_static(
    benchmark: BenchmarkFixture, workload: Workload, num_steps: int
) -> None:
    """The same in steps of fixed shapes, on a GPU by one CUDA graph; weights in the precision."""
    policy = workload.policy(num_steps)
    first = natgen.FirstStepCache(workload.cast(workload.nat), max_bytes=_FIRST_STEP_BYTES)
    decode = _static_decoder(workload, first, policy)
    indices = torch.arange(len(workload.labels), device=workload.device)
    run_benchmark(
        benchmark,
        workload,
        lambda: decode(workload.labels, indices),
        unit="images",
        count=len(indices),
        autocast=False,  # a graph takes its precision from the weights
        counted=lambda: _tokens(workload, first, policy),
    )


def bench_pictures(benchmark: BenchmarkFixture, workload: Workload, num_steps: int) -> None:
    """Batches from labels to pictures on the host, each decoded behind the next one's tokens.

    On a GPU the network and the picture decoder are compiled.
    """
    tokenizer, policy = workload.cast(workload.tokenizer), workload.policy(num_steps)
    compiled = workload.cast(tokenizer)
    if workload.device.type == "cuda":
        compiled.decoder.compile()
    first = natgen.FirstStepCache(workload.cast(workload.nat), max_bytes=_FIRST_STEP_BYTES)
    decode = _static_decoder(workload, first, policy)
    indices = torch.arange(len(workload.labels), device=workload.device)

    def pictures(draw: Callable[[], Tensor], decoder: Tokenizer) -> None:
        def picture(tokens: Tensor) -> Tensor:
            images = decoder.decode(tokens.unflatten(1, decoder.grid_size))
            return images.mul(255).to(torch.uint8)

        for _ in natgen.decode_behind(picture, (draw() for _ in range(_BATCHES))):
            pass

    run_benchmark(
        benchmark,
        workload,
        lambda: pictures(lambda: decode(workload.labels, indices), compiled),
        unit="images",
        count=_BATCHES * len(indices),
        autocast=False,
        counted=lambda: pictures(lambda: _tokens(workload, first, policy), tokenizer),
    )


def bench_generation_continuous(
    benchmark: BenchmarkFixture, workload: Workload, num_steps: int
) -> None:
    """A stream of 4 B samples through B places, each sample complete halfway."""
    values = workload.schedule(num_steps).values
    values[num_steps // 2 - 1, natgen.COMPONENTS.index("mask_ratio")] = 0.0
    schedule = natgen.StaticSchedule(values)
    labels = workload.labels.repeat(4)

    def generate() -> list[natgen.FinishedSample]:
        stream = zip(labels, range(len(labels)), strict=True)
        done = natgen.generate_continuously(
            workload.nat, schedule, stream, batch_size=len(workload.labels), noise=workload.noise
        )
        return list(done)

    run_benchmark(benchmark, workload, generate, unit="images", count=len(labels))
    passes = [sample.num_passes for sample in generate()]
    benchmark.extra_info["passes_per_image"] = sum(passes) / len(passes)


def bench_generation_plain(benchmark: BenchmarkFixture, workload: Workload, num_steps: int) -> None:
    """The published loop of 2T + 1 passes, policy and precision as of `bench_generation_static`."""
    nat, policy = workload.cast(workload.nat), workload.policy(num_steps)
    generator = torch.Generator(workload.device).manual_seed(0)
    run_benchmark(
        benchmark,
        workload,
        lambda: generate_plainly(nat, policy, workload.labels, generator=generator),
        unit="images",
        count=len(workload.labels),
        autocast=False,
    )
    benchmark.extra_info["passes_per_image"] = 2.0 * num_steps + 1


def _static_decoder(
    workload: Workload, first: natgen.FirstStepCache, policy: natgen.DecodingPolicy
) -> natgen.StaticDecoder:
    """For the workload's batch; on a GPU the network is compiled but for the first step."""
    nat = workload.cast(workload.nat)
    if workload.device.type == "cuda":
        nat.compile(dynamic=False)
    return natgen.StaticDecoder(
        nat,
        policy,
        batch_size=len(workload.labels),
        noise=workload.noise,
        first=first,
    )


def _tokens(workload: Workload, model: natgen.LogitsModel, policy: natgen.DecodingPolicy) -> Tensor:
    """The same work in single calls, which can be counted."""
    indices = torch.arange(len(workload.labels), device=workload.device)
    return natgen.generate(
        model, policy, workload.labels, sample_indices=indices, noise=workload.noise
    ).tokens


def _generate(
    benchmark: BenchmarkFixture,
    workload: Workload,
    model: natgen.LogitsModel,
    policy: natgen.DecodingPolicy,
) -> None:
    indices = torch.arange(len(workload.labels), device=workload.device)

    def generate() -> natgen.Generation:
        return natgen.generate(
            model, policy, workload.labels, sample_indices=indices, noise=workload.noise
        )

    run_benchmark(benchmark, workload, generate, unit="images", count=len(indices))
    benchmark.extra_info["passes_per_image"] = generate().num_passes
