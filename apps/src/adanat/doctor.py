"""Looks before the money is spent: the machine, the data, and a timed step of each stage."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from natgen.attention import choose_attention
from torch.utils import collect_env

from adanat.engine import AccelerateEngine
from adanat.errors import DataError
from adanat.plan import DATA_SETS, Plan, amounts, missing_weights, plan, unequal_batches
from adanat.prepare import PreparedSplit, read_prepared
from adanat.recipes.base import Recipe
from adanat.rewards import load_backbone
from adanat.scorers import load_text_scorer
from adanat.stage_timing import fastest, time_stages
from adanat.text import load_text_encoder

_GIBI = 2**30
_SHARED_MEMORY = Path("/dev/shm")
_MIN_SHARED = 2 * _GIBI
_SAMPLED_IMAGES = 64
_SENT_BYTES = 64 * 2**20
"""Of the message by which the processes' connection is timed."""


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
    episodes: int | None = None,
) -> Iterator[Finding]:
    """Look at everything that a benchmark needs, the cheap things first.

    Args:
        recipe: A benchmark.
        output_dir: Where its run folder would be.
        data_dir: The prepared data.
        engine: Precision and processes.
        batch_size: Images or samples of a timed step on this device.
        episodes: Of a timed update of the policy on this device; None: ``batch_size``.
    """
    yield _device(engine.device)
    yield _attention(recipe, engine.device)
    yield _shared_memory()
    yield _processes(engine)
    yield _batches(recipe, engine)
    yield _disk(output_dir, plan(recipe, data_dir, gpu_tflops=1.0))
    yield _data(recipe, data_dir)
    yield _weights(recipe)
    hours = 0.0
    todo = amounts(recipe, data_dir)
    for timed in time_stages(
        recipe, engine, todo, batch_size=batch_size, episodes=episodes or batch_size
    ):
        hours += timed.hours
        yield Finding(timed.name, True, timed.text)
    text = (
        f"{hours:,.1f} h on one such device, {hours / engine.num_processes:,.1f} h on "
        f"{engine.num_processes} where all share the work"
    )
    yield Finding("in all", True, text)


def _device(device: torch.device) -> Finding:
    driver = collect_env.get_nvidia_driver_version(collect_env.run)
    if device.type != "cuda":
        built = f"PyTorch built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch"
        found = f"driver {driver}, but {built} sees no GPU" if driver else "no GPU and no driver"
        text = f"{found}: the benchmarks want some; {torch.get_num_threads()} CPU threads are used"
        return Finding("device", False, text)
    properties = torch.cuda.get_device_properties(device)
    text = (
        f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / _GIBI:.0f} "
        f"GiB, driver {driver}, CUDA {torch.version.cuda}, "
        f"bf16 {torch.cuda.is_bf16_supported()}"
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
    """Let every process send a number to the others, and time a long message."""
    if engine.num_processes == 1:
        devices = torch.cuda.device_count()
        text = "one; start with torchrun to try several"
        if devices > 1:
            text = f"one, for {devices} GPUs: torchrun --nproc-per-node {devices} -m adanat doctor"
        return Finding("processes", devices <= 1, text)
    numbers = engine.gather(torch.tensor([engine.process_index])).tolist()
    backend = torch.distributed.get_backend()
    if backend == "nccl":
        backend += " " + ".".join(map(str, torch.cuda.nccl.version()))
    message = torch.ones(_SENT_BYTES, dtype=torch.uint8, device=engine.device)
    seconds = fastest(lambda: engine.gather(message), engine.device)
    rate = (engine.num_processes - 1) * _SENT_BYTES / seconds / 1e9
    text = f"{engine.num_processes} by {backend} heard {numbers}; each receives {rate:.2g} GB/s"
    return Finding("processes", numbers == list(range(engine.num_processes)), text)


def _batches(recipe: Recipe, engine: AccelerateEngine) -> Finding:
    wrong = unequal_batches(recipe, engine.num_processes)
    text = f"not divided by {engine.num_processes} processes: {', '.join(wrong)}"
    return Finding("batches", not wrong, text if wrong else "every process has an equal share")


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
    published = DATA_SETS[index.dataset].train + DATA_SETS[index.dataset].test
    text = f"{index.dataset}: {sizes}, of {published:,} published; {rate:.0f} images/s are read"
    return Finding("data", True, text)


def _weights(recipe: Recipe) -> Finding:
    """Look for models to take over, and load frozen ones: a node may have no network to fetch them.

    They would be missed in the middle of a run.
    """
    for path in missing_weights(recipe):
        return Finding("weights", False, f"{path} does not exist")
    text = recipe.text
    try:
        if recipe.reward.needs_backbone:
            load_backbone(recipe.reward)
        if text.encoder is not None:
            load_text_encoder(text.encoder, text.num_tokens)
        if recipe.reward.design == "pretrained" and recipe.reward.scorer != "classifier":
            load_text_scorer(recipe.reward, ["a photo"], torch.device("cpu"))
    except Exception as error:  # hubs raise many kinds
        return Finding("weights", False, f"{type(error).__name__}: {error}")
    found = recipe.reward.backbone if text.encoder is None else f"backbone and {text.encoder}"
    return Finding("weights", True, f"{found} can be loaded")


def report(findings: Iterator[Finding], engine: AccelerateEngine) -> bool:
    """Print findings as they come; whether all is well in every process.

    The main process prints all of its own, the others what is not well.
    """
    well = True
    for finding in findings:
        if engine.is_main or not finding.ok:
            where = "" if engine.is_main else f"process {engine.process_index}: "
            mark = "ok" if finding.ok else "LOOK"
            print(f"{mark:<5} {finding.name:<25} {where}{finding.text}", flush=True)
        well &= finding.ok
    return not engine.largest(not well)
