"""Single calls of the networks."""

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from natbench.recording import record_rate
from natbench.workload import Workload


def bench_nat_forward(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """U-ViT on B half-masked samples."""
    nat = workload.nat
    tokens = torch.randint(nat.mask_token_id, (len(workload.labels), nat.seq_len))
    tokens[:, ::2] = nat.mask_token_id
    tokens = tokens.to(workload.device)
    with torch.inference_mode():
        benchmark(workload.timed(lambda: nat(tokens, workload.labels)))
    record_rate(benchmark, "samples", len(tokens))


def bench_policy(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """The policy's decision for B samples: its share of a step is this over a forward pass."""
    nat = workload.nat
    policy = workload.policy(workload.preset.num_steps[0])
    features = torch.randn(
        len(workload.labels), nat.seq_len, nat.config.embed_dim, device=workload.device
    )
    with torch.inference_mode():
        benchmark(workload.timed(lambda: policy(features, 0)))
    record_rate(benchmark, "samples", len(features))


def bench_tokenizer_encode(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """Images to token grids."""
    size = workload.preset.tokenizer.image_size
    images = torch.rand(len(workload.labels), 3, size, size, device=workload.device)
    with torch.inference_mode():
        benchmark(workload.timed(lambda: workload.tokenizer.encode(images)))
    record_rate(benchmark, "images", len(images))


def bench_tokenizer_decode(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """Token grids to images."""
    shape = (len(workload.labels), *workload.tokenizer.grid_size)
    grid = torch.randint(workload.preset.tokenizer.codebook_size, shape, device=workload.device)
    with torch.inference_mode():
        benchmark(workload.timed(lambda: workload.tokenizer.decode(grid)))
    record_rate(benchmark, "images", len(grid))


def bench_frozen_features(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """The reward's backbone on B images."""
    size = workload.preset.tokenizer.image_size
    images = torch.rand(len(workload.labels), 3, size, size, device=workload.device)
    benchmark(workload.timed(lambda: workload.reward.extract(images)))
    record_rate(benchmark, "images", len(images))


def bench_discriminator_step(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """One update of the heads on the features of B real and B fake images."""
    size = workload.preset.tokenizer.image_size
    images = torch.rand(2, len(workload.labels), 3, size, size, device=workload.device)
    real, fake = (workload.reward.extract(side) for side in images)
    labels = workload.labels
    benchmark(workload.timed(lambda: workload.reward.update(real, labels, fake, labels)))
    record_rate(benchmark, "images", 2 * len(labels))
