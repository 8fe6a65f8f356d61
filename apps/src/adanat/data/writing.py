"""Writes webdataset shards: the same samples give the same bytes."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import webdataset

from adanat.checkpoints import atomic_write, atomic_write_json
from adanat.data.shards import INDEX_FILE, INDEX_FORMAT, Index, ShardInfo

SHARD_SIZE = 10_000


class Sample(NamedTuple):
    """One sample of a shard."""

    key: str
    members: Mapping[str, bytes]
    """Content by extension, such as `jpg`, `txt` and `cls`."""


def write_split(
    folder: Path, split: str, samples: Iterable[Sample], *, shard_size: int = SHARD_SIZE
) -> tuple[ShardInfo, ...]:
    """Write the shards `SPLIT-000000.tar`, `SPLIT-000001.tar`... of one split.

    Args:
        folder: created when absent.
        split: opens the shards' names.
        samples: read once, in order; one shard of them is held in memory.
        shard_size: samples a shard, the last one excepted.

    Raises:
        StorageError: a shard could not be written.
    """
    return tuple(
        _write_shard(folder, f"{split}-{number:06d}.tar", chunk)
        for number, chunk in enumerate(_chunks(samples, shard_size))
    )


def write_index(folder: Path, index: Index) -> None:
    """Vouch for the shards of a folder; written last, so that a folder with an index is whole."""
    splits = {name: [shard._asdict() for shard in row] for name, row in index.splits.items()}
    atomic_write_json(
        folder / INDEX_FILE, {"format": INDEX_FORMAT, **index._asdict(), "splits": splits}
    )


def _write_shard(folder: Path, name: str, samples: list[Sample]) -> ShardInfo:
    def write(path: Path) -> None:
        with (
            path.open("wb") as file,
            webdataset.TarWriter(file, user="", group="", mtime=0, encoder=False) as writer,
        ):
            for sample in samples:
                writer.write({"__key__": sample.key, **sample.members})

    atomic_write(folder / name, write)
    with (folder / name).open("rb") as file:
        return ShardInfo(name, len(samples), hashlib.file_digest(file, "sha256").hexdigest())


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    remaining = iter(samples)
    while chunk := list(islice(remaining, size)):
        yield chunk
