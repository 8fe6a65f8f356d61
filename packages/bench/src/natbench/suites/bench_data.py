"""From images to stored tokens, and from the store to the device."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from vqtok import TokenStore, TokenStoreWriter

from natbench.recording import run_benchmark
from natbench.workload import Workload

_BATCHES = 64  # of a store


def bench_tokenization(benchmark: BenchmarkFixture, workload: Workload, tmp_path: Path) -> None:
    """uint8 images of the host to a complete store of their tokens: one batch."""
    size = workload.preset.tokenizer.image_size
    images = torch.randint(256, (len(workload.labels), 3, size, size), dtype=torch.uint8)
    labels = workload.labels.cpu()
    folders = (tmp_path / str(number) for number in count())

    def tokenize() -> None:
        pixels = images.to(workload.device).float() / 255
        grid = workload.tokenizer.encode(pixels).cpu()
        _write(next(folders), workload, 1, lambda: (grid, labels))

    run_benchmark(benchmark, workload, tokenize, unit="images", count=len(images))


def bench_token_store(benchmark: BenchmarkFixture, workload: Workload, tmp_path: Path) -> None:
    """One batch of random items, memory-mapped, to the device."""
    shape = (len(workload.labels), *workload.tokenizer.grid_size)
    codes = workload.preset.tokenizer.codebook_size
    labels = workload.labels.cpu()
    _write(tmp_path, workload, _BATCHES, lambda: (torch.randint(codes, shape), labels))
    store = TokenStore(tmp_path)

    def load() -> None:
        tokens, conditions = store.batch(torch.randint(len(store), (len(labels),)))
        for loaded in (tokens, conditions["labels"]):
            loaded.to(workload.device)

    run_benchmark(benchmark, workload, load, unit="samples", count=len(labels))


def _write(
    folder: Path,
    workload: Workload,
    num_batches: int,
    make: Callable[[], tuple[Tensor, Tensor]],
) -> None:
    size = len(workload.labels)
    writer = TokenStoreWriter(
        folder,
        num_items=num_batches * size,
        grid_size=workload.tokenizer.grid_size,
        codebook_size=workload.preset.tokenizer.codebook_size,
        conditions={"labels": ("int64", ())},
    )
    for _ in range(num_batches):
        grid, labels = make()
        writer.write(writer.num_written, grid, {"labels": labels})
    writer.close()
