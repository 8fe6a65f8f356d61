"""The index of a prepared data set: which sample lies where, and in which split."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adanat.checkpoints import atomic_write_bytes, atomic_write_json, read_json
from adanat.errors import DataError, StorageError
from adanat.prepare.scanning import SAMPLE_DTYPE

INDEX_FILE = "prepared.json"
SPLITS = ("fit", "validation", "test")
_FORMAT = 1


class ShardFile(NamedTuple):
    """A shard as the index describes it."""

    path: str
    """Relative to the index's folder, or absolute for shards that stay where they are."""
    num_bytes: int
    num_samples: int


class PreparedIndex(NamedTuple):
    """What a folder of prepared data holds."""

    dataset: str
    image_size: int | None
    """Side to which pictures were cropped; None: they are as published."""
    captions_per_image: int
    """0 for classes."""
    class_names: tuple[str, ...]
    shards: tuple[ShardFile, ...]
    splits: Mapping[str, int]
    """Number of samples."""
    counts: Mapping[str, Any]
    """What was found, skipped and missing."""
    num_validation: int | None = None
    """Training samples that were to be held out."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which samples there are, wherever the shards lie."""
        shards = [(Path(s.path).name, s.num_bytes, s.num_samples) for s in self.shards]
        text = repr((self.dataset, self.image_size, self.class_names, shards, dict(self.splits)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_index(folder: Path, index: PreparedIndex, rows: Mapping[str, NDArray[np.void]]) -> None:
    """Write the sample tables, then the index: a folder with an index is whole."""
    for split, table in rows.items():
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        atomic_write_bytes(folder / f"{split}.npy", buffer.getvalue())
    shards = [shard._asdict() for shard in index.shards]
    atomic_write_json(folder / INDEX_FILE, {"format": _FORMAT, **index._asdict(), "shards": shards})


def read_prepared(folder: Path) -> PreparedIndex:
    """Read the index of a prepared folder.

    Raises:
        DataError: There is none, or it is damaged or of another format.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no prepared data (no {INDEX_FILE}): run `adanat prepare`")
    try:
        found = read_json(path)
        if found.pop("format") != _FORMAT:
            raise DataError(f"{path} is of another version: run `adanat prepare` again")
        return PreparedIndex(
            **{
                **found,
                "class_names": tuple(found["class_names"]),
                "shards": tuple(ShardFile(**shard) for shard in found["shards"]),
            }
        )
    except (StorageError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}): run `adanat prepare` again") from error


def read_rows(folder: Path, split: str) -> NDArray[np.void]:
    """The sample table of one split, memory-mapped. Raises DataError for a damaged one."""
    path = folder / f"{split}.npy"
    try:
        rows: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is missing or damaged ({error}): run `adanat prepare`") from error
    if rows.dtype != SAMPLE_DTYPE:
        raise DataError(f"{path} is of another version: delete {folder} and prepare it again")
    return rows


def hold_out(rows: NDArray[np.void], count: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Divide training samples into (held out, rest), both in shuffled order.

    Of every class the same number is held out (the first classes give one more where it does not
    divide), those that come first in the shuffled order.

    Raises:
        DataError: There are not more than ``count`` samples.
    """
    if len(rows) <= count:
        raise DataError(
            f"{count} of {len(rows)} training samples cannot be held out for validation: "
            "give a smaller --num-validation"
        )
    rows = np.sort(rows, order="order")
    classes = np.unique(rows["label"])
    quotas = [count // len(classes) + (i < count % len(classes)) for i in range(len(classes))]
    held = np.zeros(len(rows), dtype=bool)
    for label, quota in zip(classes, quotas, strict=True):
        held[np.flatnonzero(rows["label"] == label)[:quota]] = True
    return rows[held], rows[~held]


def without_duplicates(
    tables: Sequence[NDArray[np.void]], keys: Sequence[str]
) -> tuple[NDArray[np.void], list[str]]:
    """Join sample tables; of equal keys the first one stays, the others are named."""
    rows = np.concatenate(tables)
    _, first = np.unique(rows["order"], return_index=True)
    keep = np.zeros(len(rows), dtype=bool)
    keep[first] = True
    return rows[keep], [f"{keys[int(i)]}: the key occurs twice" for i in np.flatnonzero(~keep)]
