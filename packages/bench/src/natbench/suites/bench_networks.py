"""Single calls of the networks."""

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from natbench.recording import run_benchmark
from natbench.workload import Workload


def bench_nat_forward(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """U-ViT on B half-masked samples."""
    nat = workload.nat
    tokens = torch.randint(nat.mask_token_id, (len(workload.labels), nat.seq_len))
    tokens[:, ::2] = nat.mask_token_id
    tokens = tokens.to(workload.device)
    with torch.no_grad():
        run_benchmark(
            benchmark,
            workload,
            lambda: nat(tokens, workload.labels),
            unit="samples",
            count=len(tokens),
        )


def bench_policy(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """The policy's decision for B samples: its share of a step is this over a forward pass."""
    nat = workload.nat
    policy = workload.policy(workload.preset.num_steps[0])
    features = torch.randn(
        len(workload.labels), nat.seq_len, nat.config.embed_dim, device=workload.device
    )
    run_benchmark(
        benchmark, workload, lambda: policy(features, 0), unit="samples", count=len(features)
    )


def bench_tokenizer_encode(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """Images to token grids."""
    images = _images(workload)
    run_benchmark(
        benchmark,
        workload,
        lambda: workload.tokenizer.encode(images),
        unit="images",
        count=len(images),
    )


def bench_tokenizer_decode(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """Token grids to images."""
    shape = (len(workload.labels), *workload.tokenizer.grid_size)
    grid = torch.randint(workload.preset.tokenizer.codebook_size, shape, device=workload.device)
    run_benchmark(
        benchmark, workload, lambda: workload.tokenizer.decode(grid), unit="images", count=len(grid)
    )


def bench_frozen_features(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """The reward's backbone on B images, in float32 whatever the precision of the others."""
    images = _images(workload)
    run_benchmark(
        benchmark,
        workload,
        lambda: workload.reward.extract(images),
        unit="images",
        count=len(images),
        autocast=False,
    )


def _images(workload: Workload) -> Tensor:
    size = workload.preset.tokenizer.image_size
    return torch.rand(len(workload.labels), 3, size, size, device=workload.device)
