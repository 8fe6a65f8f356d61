"""Writes a listed source as webdataset shards: in parallel, resumable, the same bytes each time."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import webdataset

from adanat.checkpoints import atomic_write, atomic_write_json, read_json
from adanat.errors import DataError
from adanat.prepare.items import Item
from adanat.prepare.pictures import adm_crop, encode_png, open_rgb
from adanat.progress import ProgressReporter

PARTS_FOLDER = ".parts"
_SUFFIXES = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}


class WrittenShard(NamedTuple):
    """One finished shard."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str
    skipped: tuple[str, ...]
    """"KEY: reason" of the items that were left out."""


class _Task(NamedTuple):
    folder: Path
    name: str
    items: tuple[Item, ...]
    image_size: int | None


class SkipBudget:
    """Counts items that cannot be used; past ``limit`` of them the preparation fails.

    Args:
        limit: How many are skipped before DataError.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[str] = []

    def add(self, where: str, skipped: Sequence[str]) -> None:
        """Note what one shard skipped. Raises DataError, with the last one, past the limit."""
        self.found += [f"{where}, {text}" for text in skipped]
        if len(self.found) > self.limit:
            raise DataError(
                f"{len(self.found)} items cannot be used, at most {self.limit} may be skipped "
                f"(--max-bad-fraction); the last one is in {self.found[-1]}"
            )

    def reasons(self) -> dict[str, int]:
        """How often each reason occurred, without the particulars."""
        counts = Counter(text.split(": ", 1)[1].partition(":")[0] for text in self.found)
        return dict(sorted(counts.items()))


def write_shards(
    folder: Path,
    split: str,
    items: Sequence[Item],
    *,
    image_size: int | None,
    items_per_shard: int,
    workers: int,
    budget: SkipBudget,
) -> list[WrittenShard]:
    """Write the items in order as ``SPLIT-000000.tar`` and so on; finished shards are kept.

    Every picture is decoded once: what cannot be decoded is left out and counted. Which process
    writes a shard changes nothing, so any number of workers gives the same bytes.

    Args:
        folder: Where the shards go.
        split: Opens the shards' names.
        items: What to write.
        image_size: Crop to this size as ADM does and store PNG; None: the files as they are.
        items_per_shard: At most this many in one shard.
        workers: Processes; 0 works in this one.
        budget: Told what was skipped.

    Raises:
        DataError: Two items have one key, a source cannot be read, or too many were skipped.
        StorageError: A shard could not be written.
    """
    _refuse_duplicates(items)
    tasks = [
        _Task(
            folder, f"{split}-{number:06d}.tar", tuple(items[s : s + items_per_shard]), image_size
        )
        for number, s in enumerate(range(0, len(items), items_per_shard))
    ]
    done: dict[str, WrittenShard] = {}
    with ProgressReporter(f"prepare {split}", len(items)) as progress:
        for task, shard in _run(tasks, workers):
            done[task.name] = shard
            budget.add(task.name, shard.skipped)
            progress.advance(len(task.items), {"skipped": len(budget.found)})
    return [done[task.name] for task in tasks]


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[tuple[_Task, WrittenShard]]:
    if workers == 0:
        for task in tasks:
            yield task, _write_shard(task)
        return
    # Spawned, because a fork would copy the threads that torch has started into a broken state.
    pool: Executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        pending: dict[Future[WrittenShard], _Task] = {
            pool.submit(_write_shard, task): task for task in tasks
        }
        for future in as_completed(pending):
            yield pending[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_shard(task: _Task) -> WrittenShard:
    """Write one shard unless it is there; its description is written after it."""
    path = task.folder / task.name
    description = task.folder / PARTS_FOLDER / f"{task.name}.json"
    if description.is_file() and path.is_file():
        found = read_json(description)
        if path.stat().st_size == found["num_bytes"]:
            return WrittenShard(**{**found, "skipped": tuple(found["skipped"])})
    skipped: list[str] = []
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        with (
            temporary.open("wb") as file,
            webdataset.TarWriter(file, user="", group="", mtime=0, encoder=False) as writer,
        ):
            for item in task.items:
                try:
                    sample = _sample(item, task.image_size)
                except ValueError as error:
                    skipped.append(f"{item.key}: {error}")
                    continue
                writer.write(sample)
                written += 1

    atomic_write(path, write)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    shard = WrittenShard(task.name, written, path.stat().st_size, digest, tuple(skipped))
    atomic_write_json(description, shard._asdict())
    return shard


def _sample(item: Item, image_size: int | None) -> Mapping[str, Any]:
    """The members of one sample. Raises ValueError for a picture that cannot be decoded."""
    data = item.image.read()
    picture = open_rgb(data)
    suffix = _SUFFIXES[data[:2]]  # the name may lie: ImageNet has a PNG file called .JPEG
    if image_size is not None:
        data, suffix = encode_png(adm_crop(picture, image_size)), "png"
    texts = {extension: text.encode() for extension, text in item.texts.items()}
    return {"__key__": item.key, suffix: data, **texts}


def _refuse_duplicates(items: Sequence[Item]) -> None:
    counts = Counter(item.key for item in items)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise DataError(
            f"{len(twice)} keys occur more than once, the first is {twice[0]!r}: "
            "give every image a name of its own"
        )
