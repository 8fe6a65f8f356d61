"""Attention by backend and shape."""

import pytest
import torch
from natgen.attention import AttentionBackend, attend, xformers_obstacle
from pytest_benchmark.fixture import BenchmarkFixture

from natbench.recording import run_benchmark
from natbench.workload import Workload


@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
def bench_attention(
    benchmark: BenchmarkFixture,
    workload: Workload,
    attention_shape: tuple[int, int, int],
    backend: AttentionBackend,
) -> None:
    """Self-attention of B sequences: tokens and the class token, heads, channels of a head."""
    length, heads, head_dim = attention_shape
    size = len(workload.labels)
    if backend == "xformers":
        obstacle = xformers_obstacle(workload.device, workload.dtype, head_dim, training=False)
        if obstacle is not None:
            pytest.skip(f"xformers: {obstacle}")
    query, key, value = torch.randn(
        3, size, length, heads, head_dim, dtype=workload.dtype, device=workload.device
    )
    with torch.no_grad():
        run_benchmark(
            benchmark,
            workload,
            lambda: attend(query, key, value, backend),
            unit="sequences",
            count=size,
        )
