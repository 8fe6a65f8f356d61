"""Features on disk in chunks of consecutive images: shared by processes, kept when interrupted.

A chunk is a fixed range of image indices, whoever computes it and whenever, so that batches and
with them the last bits of the features do not depend on the number of processes.
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adanat.checkpoints import atomic_write, atomic_write_json, read_json
from adanat.errors import StorageError
from adanat.evaluation.archives import UNREADABLE
from adanat.evaluation.extractors import Extractor, Identity
from adanat.evaluation.processes import Processes
from adanat.evaluation.sources import Item, Source
from adanat.metrics.features import FloatArray
from adanat.progress import ProgressReporter
from adanat.runs import fingerprint

LABELS = "labels"
CHUNK_SIZE = 500
"""Images between two files; what an interruption costs at most."""


class Sink(Protocol):
    """Takes the images themselves as they pass."""

    def has(self, start: int, stop: int) -> bool:
        """Whether these images were taken before."""

    def take(self, start: int, items: Sequence[Item]) -> None:
        """Keep the images from index `start` on."""


@dataclass(frozen=True)
class FeatureStore:
    """One extractor's outputs for one source.

    Attributes:
        folder: Its chunk files and `record.json`.
        num_images: How many images the source has.
        chunk_size: Images a chunk.
    """

    folder: Path
    num_images: int
    chunk_size: int

    @classmethod
    def of(cls, cache: Path, source: Source, identity: Identity, chunk_size: int) -> "FeatureStore":
        """The store below `cache` of this content and extractor; nothing is created."""
        name = f"{identity.name}-{fingerprint(identity.to_json())}-{chunk_size}"
        return cls(source_folder(cache, source) / name, len(source), chunk_size)

    def path(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:06d}.npz"

    def write(self, chunk: int, arrays: Mapping[str, FloatArray]) -> None:
        """Keep a chunk. Raises StorageError."""
        # Another evaluation may be writing the same chunk: each under a name of its own.
        whole = self.folder / f".{secrets.token_hex(4)}-{chunk:06d}.npz"
        atomic_write(whole, lambda path: _save_arrays(path, arrays))
        whole.replace(self.path(chunk))

    def chunks(self, name: str) -> Iterator[FloatArray]:
        """One output's arrays chunk by chunk, in the order of the images.

        Raises:
            StorageError: A chunk is missing or damaged.
        """
        for chunk in range(num_chunks(self.num_images, self.chunk_size)):
            try:
                with np.load(self.path(chunk), allow_pickle=False) as arrays:
                    yield arrays[name]
            except UNREADABLE as error:
                raise StorageError(
                    f"cannot read {self.path(chunk)} ({error}): delete it and run the same command"
                ) from error

    def read(self, name: str) -> FloatArray:
        """One output of all images. Raises StorageError."""
        return np.concatenate(list(self.chunks(name)))

    def labels(self) -> NDArray[np.int64]:
        """Labels (N,) of all images, -1 where there is none. Raises StorageError."""
        return self.read(LABELS).astype(np.int64)


@dataclass
class Times:
    """Seconds spent on images; sums of chunks, whichever process did them.

    Attributes:
        images: How many.
        reading: Seconds to generate or to read and decode them.
        features: Seconds in extractors.
        saving: Seconds to write features, and in sinks.
    """

    images: int = 0
    reading: float = 0.0
    features: float = 0.0
    saving: float = 0.0

    @property
    def total(self) -> float:
        """All seconds."""
        return self.reading + self.features + self.saving

    def add(self, other: "Times") -> None:
        self.images += other.images
        self.reading += other.reading
        self.features += other.features
        self.saving += other.saving


@dataclass
class Collection:
    """What `collect` leaves: a store for each extractor, and the time that it took.

    Attributes:
        stores: By the extractor's name.
        times: Of all images, whichever process read them and when.
        own: Of the images that this process read now.
    """

    stores: dict[str, FeatureStore] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    own: Times = field(default_factory=Times)


def collect(
    source: Source,
    extractors: Sequence[Extractor],
    *,
    cache: Path,
    processes: Processes,
    batch_size: int,
    sinks: Sequence[Sink] = (),
    chunk_size: int = CHUNK_SIZE,
) -> Collection:
    """Run every image once through the extractors that lack it, this process its share of chunks.

    Args:
        source: The images.
        extractors: Networks, each with another name.
        cache: Folder of everything kept between evaluations, the same for all processes.
        processes: Who shares the work. All return together.
        batch_size: Images handed to an extractor at once.
        sinks: Take the images themselves.
        chunk_size: Images a chunk; a multiple of `batch_size` keeps batches full.

    Raises:
        DataError: An image cannot be read.
        StorageError: A chunk cannot be written.
    """
    found = Collection(
        {
            e.identity.name: FeatureStore.of(cache, source, e.identity, chunk_size)
            for e in extractors
        }
    )
    if processes.is_first:
        for extractor in extractors:
            _describe(found.stores[extractor.identity.name], source, extractor.identity)
    times_folder = source_folder(cache, source) / f"seconds-{chunk_size}"
    total = num_chunks(len(source), chunk_size)
    mine = {
        chunk: (chunk * chunk_size, min((chunk + 1) * chunk_size, len(source)))
        for chunk in range(processes.rank, total, processes.count)
    }
    num_images = sum(stop - start for start, stop in mine.values())
    with ProgressReporter(source.description, num_images) as progress:
        for chunk, (start, stop) in mine.items():
            missing = {
                store: extractor
                for extractor in extractors
                if not (store := found.stores[extractor.identity.name]).path(chunk).is_file()
            }
            waiting = [sink for sink in sinks if not sink.has(start, stop)]
            if missing or waiting:
                times = _pass(source.items(start, stop), start, chunk, missing, waiting, batch_size)
                atomic_write_json(times_folder / f"chunk-{chunk:06d}.json", vars(times))
                found.own.add(times)
            progress.advance(stop - start)
    processes.wait()
    for path in sorted(times_folder.glob("chunk-*.json")):
        found.times.add(Times(**read_json(path)))
    return found


def num_chunks(num_images: int, chunk_size: int) -> int:
    """How many chunks hold `num_images`."""
    return -(-num_images // chunk_size)


def source_folder(cache: Path, source: Source) -> Path:
    """Where everything about one source's content is kept."""
    return cache / "features" / source.key[:32]


def _pass(
    items: Iterable[Item],
    start: int,
    chunk: int,
    extractors: Mapping[FeatureStore, Extractor],
    sinks: Sequence[Sink],
    batch_size: int,
) -> Times:
    times = Times()
    outputs: dict[FeatureStore, list[dict[str, FloatArray]]] = {s: [] for s in extractors}
    began = time.perf_counter()
    for batch in _batched(items, batch_size):
        read = time.perf_counter()
        for sink in sinks:
            sink.take(start + times.images, batch)
        kept = time.perf_counter()
        labels = np.array([-1 if i.label is None else i.label for i in batch], dtype=np.float32)
        for store, extractor in extractors.items():
            outputs[store].append({**extractor(batch), LABELS: labels})
        times.images += len(batch)
        times.reading += read - began
        times.saving += kept - read
        began = time.perf_counter()
        times.features += began - kept
    for store, parts in outputs.items():
        store.write(chunk, {n: np.concatenate([part[n] for part in parts]) for n in parts[0]})
    times.saving += time.perf_counter() - began
    return times


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _describe(store: FeatureStore, source: Source, identity: Identity) -> None:
    """Say in the folder itself what its arrays are."""
    record = {
        "source": source.description,
        "source_sha256": source.key,
        "num_images": store.num_images,
        "chunk_size": store.chunk_size,
        "extractor": identity.to_json(),
    }
    atomic_write_json(store.folder / "record.json", record)


def _save_arrays(path: Path, arrays: Mapping[str, FloatArray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
