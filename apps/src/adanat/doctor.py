"""Looks before the money is spent: the machine, the data, and a timed step of each stage."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from natgen import NAT, NATTrainer, NoiseSource, generate
from natgen.attention import choose_attention
from vqtok import Tokenizer, TokenizerTrainer

from adanat.engine import AccelerateEngine
from adanat.errors import DataError
from adanat.plan import Plan, amounts, nat_config, plan
from adanat.prepare import PreparedSplit, read_prepared
from adanat.recipes.base import Recipe
from adanat.schedule_points import default_point

_GIBI = 2**30
_SHARED_MEMORY = Path("/dev/shm")
_MIN_SHARED = 2 * _GIBI
_SAMPLED_IMAGES = 64
_TIMED = 3
"""Runs of which the fastest counts, after one to warm up."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


def examine(
    recipe: Recipe,
    output_dir: Path,
    data_dir: Path | None,
    engine: AccelerateEngine,
    *,
    batch_size: int,
) -> Iterator[Finding]:
    """Look at everything that a benchmark needs, the cheap things first.

    Args:
        recipe: A benchmark.
        output_dir: Where its run folder would be.
        data_dir: The prepared data.
        engine: Precision and processes.
        batch_size: Images or samples of a timed step on this device.
    """
    yield _device(engine.device)
    yield _attention(recipe, engine.device)
    yield _shared_memory()
    yield _processes(engine)
    expected = plan(recipe, None, gpu_tflops=1.0)
    yield _disk(output_dir, expected)
    yield _data(recipe, data_dir)
    yield from _timed_stages(recipe, engine, batch_size)


def _device(device: torch.device) -> Finding:
    if device.type != "cuda":
        text = f"no GPU: the benchmarks want some; {torch.get_num_threads()} CPU threads are used"
        return Finding("device", False, text)
    properties = torch.cuda.get_device_properties(device)
    text = (
        f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / _GIBI:.0f} "
        f"GiB, CUDA {torch.version.cuda}, bf16 {torch.cuda.is_bf16_supported()}"
    )
    return Finding("device", torch.cuda.is_bf16_supported(), text)


def _attention(recipe: Recipe, device: torch.device) -> Finding:
    """Which kernels the transformer will use, and why."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    head_dim = recipe.generator.embed_dim // recipe.generator.num_heads
    choice = choose_attention("auto", device, dtype, head_dim, True)
    return Finding("attention", True, f"{choice.backend}: {choice.reason}")


def _shared_memory() -> Finding:
    if not _SHARED_MEMORY.is_dir():
        return Finding("shared memory", False, f"{_SHARED_MEMORY} is missing")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    text = f"{free / _GIBI:.1f} GiB free in {_SHARED_MEMORY}"
    advice = "; NCCL wants 2 GiB and more: docker run --shm-size=16g" if free < _MIN_SHARED else ""
    return Finding("shared memory", free >= _MIN_SHARED, text + advice)


def _processes(engine: AccelerateEngine) -> Finding:
    """Let every process send a number to the others."""
    if engine.num_processes == 1:
        return Finding("processes", True, "one; start with torchrun to try several")
    numbers = engine.gather(torch.tensor([engine.process_index])).tolist()
    backend = torch.distributed.get_backend()
    whole = numbers == list(range(engine.num_processes))
    return Finding("processes", whole, f"{engine.num_processes} by {backend} heard {numbers}")


def _disk(output_dir: Path, expected: Plan) -> Finding:
    existing = next(
        path for path in (output_dir.absolute(), *output_dir.absolute().parents) if path.exists()
    )
    needed = sum(stage.gigabytes for stage in expected.stages if stage.stage != "data")
    free = shutil.disk_usage(existing).free / 1e9
    writable = os.access(existing, os.W_OK)
    text = f"{free:,.0f} GB free at {existing}, {needed:,.0f} GB needed beside the data"
    return Finding("disk", writable and free > needed, text + ("" if writable else "; read-only"))


def _data(recipe: Recipe, data_dir: Path | None) -> Finding:
    """Read the first pictures of the set as training will."""
    if data_dir is None:
        return Finding("data", False, f"give --data-dir: adanat prepare {recipe.data.source}")
    try:
        index = read_prepared(data_dir)
        split = PreparedSplit(data_dir, "fit", recipe.data.image_size)
        rows = range(min(_SAMPLED_IMAGES, len(split)))
        began = time.perf_counter()
        split.images(rows)
        rate = len(rows) / (time.perf_counter() - began)
    except DataError as error:
        return Finding("data", False, str(error))
    if index.dataset != recipe.data.source:
        return Finding("data", False, f"{data_dir} holds {index.dataset}")
    sizes = ", ".join(f"{name} {count:,}" for name, count in index.splits.items())
    return Finding("data", True, f"{index.dataset}: {sizes}; {rate:.0f} images/s read and cropped")


def _timed_stages(recipe: Recipe, engine: AccelerateEngine, batch_size: int) -> Iterator[Finding]:
    """A step of each stage with random weights, and how long the whole would take at that speed."""
    device = engine.device
    yield _timed(
        "train-tokenizer",
        _tokenizer_step(recipe, engine, batch_size),
        batch_size,
        recipe.tokenizer.total_steps * recipe.tokenizer.batch_size,
        device,
    )
    todo = amounts(recipe, None)
    tokenizer = Tokenizer(recipe.tokenizer.model).to(device).eval()
    images = _images(recipe, batch_size, device)
    yield _timed("tokenize", lambda: tokenizer.encode(images), batch_size, todo.items, device)
    config = nat_config(recipe)
    trainer = NATTrainer(NAT(config).to(device), recipe.generator.training, seed=0, engine=engine)
    tokens = torch.zeros(batch_size, *config.grid_size, dtype=torch.int64, device=device)
    if config.context_dim is None:
        condition = torch.zeros(batch_size, dtype=torch.int64, device=device)
    else:
        size = (batch_size, config.num_context_tokens, config.context_dim)
        condition = torch.zeros(size, device=device)
    seen = recipe.generator.training.total_steps * recipe.generator.batch_size
    yield _timed(
        "train-generator", lambda: trainer.step(tokens, condition), batch_size, seen, device
    )
    nat, schedule = trainer.ema_model, default_point(recipe.num_decoding_steps).schedule()
    indices = torch.arange(batch_size, device=device)

    def draw() -> torch.Tensor:
        generation = generate(
            nat, schedule, condition, sample_indices=indices, noise=NoiseSource(0)
        )
        return tokenizer.decode(generation.tokens.unflatten(1, tokenizer.grid_size))

    samples = todo.searched + todo.episodes + todo.drawn
    yield _timed("search, policy, evaluate", draw, batch_size, samples, device)


def _tokenizer_step(
    recipe: Recipe, engine: AccelerateEngine, batch_size: int
) -> Callable[[], object]:
    """One update without the frozen features and the discriminator."""
    training = replace(recipe.tokenizer.training, perceptual_weight=0.0, adversarial=None)
    tokenizer = Tokenizer(recipe.tokenizer.model).to(engine.device)
    trainer = TokenizerTrainer(tokenizer, training, None, engine)
    images = _images(recipe, batch_size, engine.device)
    return lambda: trainer.step(images)


def _images(recipe: Recipe, batch_size: int, device: torch.device) -> torch.Tensor:
    side = recipe.data.image_size
    return torch.rand(batch_size, 3, side, side, device=device)


def _timed(
    name: str, work: Callable[[], object], batch_size: int, total: int, device: torch.device
) -> Finding:
    seconds = []
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    best = min(seconds[1:])
    rate = batch_size / best
    hours = total / rate / 3600
    return Finding(name, True, f"{best:.3f} s a step of {batch_size}, {rate:.1f}/s; {hours:,.1f} h")


def report(findings: Iterator[Finding]) -> bool:
    """Print findings as they come; whether all is well."""
    well = True
    for finding in findings:
        print(f"{'ok' if finding.ok else 'LOOK':<5} {finding.name:<25} {finding.text}", flush=True)
        well &= finding.ok
    return well
