"""Finds the samples of webdataset shards without unpacking or rewriting them."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adanat.checkpoints import read_json
from adanat.errors import DataError, StorageError
from adanat.prepare.members import Member, tar_members
from adanat.prepare.pictures import open_rgb

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
LABEL_EXTENSION = "cls"
CAPTION_EXTENSION = "txt"
SAMPLE_DTYPE = np.dtype(
    [
        ("shard", "<u4"),
        ("image_offset", "<u8"),
        ("image_size", "<u4"),
        ("text_offset", "<u8"),
        ("text_size", "<u4"),
        ("label", "<i4"),
        ("order", "<u8"),
    ]
)
"""Where a sample lies: its shard, its picture, its caption; its label or -1; its shuffling key."""


class Scan(NamedTuple):
    """What one shard holds."""

    samples: NDArray[np.void]
    """(n,) of ``SAMPLE_DTYPE``, in the shard's order, with ``shard`` 0."""
    keys: tuple[str, ...]
    skipped: tuple[str, ...]
    """"KEY: reason" of what is there and cannot be used."""
    missing: int
    """Samples that img2dataset could not download or resize, by its statistics."""


def scan_shards(
    paths: Sequence[Path], *, num_classes: int | None, check_images: bool, workers: int
) -> Iterator[Scan]:
    """Scan shards in order.

    Args:
        paths: Uncompressed tar files.
        num_classes: Samples have a ``.cls`` label below this; None: a ``.txt`` caption.
        check_images: Decode every picture once.
        workers: Processes; 0 works in this one.

    Raises:
        DataError: A shard is missing, cut off, or no tar file.
    """
    arguments = (paths, repeat(num_classes), repeat(check_images))
    if workers == 0:
        yield from map(scan_shard, *arguments)
        return
    pool: Executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(scan_shard, *arguments)
    finally:
        pool.shutdown(cancel_futures=True)


def scan_shard(path: Path, num_classes: int | None, check_images: bool) -> Scan:
    """Scan one shard; see `scan_shards`."""
    groups: dict[str, dict[str, Member]] = {}
    skipped: list[str] = []
    for name, member in tar_members(path):
        key, extension = split_name(name)
        group = groups.setdefault(key, {})
        if extension in group:
            skipped.append(f"{key}: two .{extension} members, the first one is taken")
            continue
        group[extension] = member
    rows: list[tuple[int, ...]] = []
    keys: list[str] = []
    for key, group in groups.items():
        try:
            image, text, label = _read_sample(group, num_classes, check_images)
        except ValueError as error:
            skipped.append(f"{key}: {error}")
            continue
        rows.append((0, image.offset, image.size, text.offset, text.size, label, order_key(key)))
        keys.append(key)
    return Scan(
        np.array(rows, dtype=SAMPLE_DTYPE), tuple(keys), tuple(skipped), _count_missing(path)
    )


def split_name(name: str) -> tuple[str, str]:
    """A member's key and extension, as webdataset has it: cut at the first dot after the folder."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def order_key(key: str) -> int:
    """64 bits that put samples in an order which has nothing to do with their source's."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def decode_caption(data: bytes) -> str:
    """UTF-8 text of any script, each line's white space made single blanks.

    Raises:
        ValueError: It is not UTF-8, or there is nothing to read.
    """
    try:
        lines = [" ".join(line.split()) for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"the caption is not UTF-8: {error}") from error
    caption = "\n".join(line for line in lines if line)
    if not caption:
        raise ValueError("the caption is empty")
    return caption


def decode_label(data: bytes, num_classes: int) -> int:
    """A class number in decimal digits. Raises ValueError outside 0 to ``num_classes`` - 1."""
    try:
        label = int(data)
    except ValueError:
        raise ValueError(f"the label is no number: {data[:20]!r}") from None
    if not 0 <= label < num_classes:
        raise ValueError(f"the label is out of range: {label}, not in 0 to {num_classes - 1}")
    return label


def _read_sample(
    group: dict[str, Member], num_classes: int | None, check_images: bool
) -> tuple[Member, Member, int]:
    """The picture, the text and the label of one sample. Raises ValueError for a bad one."""
    image = next((group[e] for e in IMAGE_EXTENSIONS if e in group), None)
    if image is None:
        raise ValueError("no image member")
    extension = CAPTION_EXTENSION if num_classes is None else LABEL_EXTENSION
    if extension not in group:
        raise ValueError(f"no .{extension} member")
    text = group[extension]
    label = -1
    if num_classes is None:
        decode_caption(text.read())
    else:
        label = decode_label(text.read(), num_classes)
    if check_images:
        open_rgb(image.read())
    elif image.size == 0:
        raise ValueError("the file is empty")
    return image, text, label


def _count_missing(path: Path) -> int:
    """What img2dataset's statistics beside a shard say was not had; 0 without them."""
    statistics = path.with_name(f"{path.stem}_stats.json")
    if not statistics.is_file():
        return 0
    try:
        found = read_json(statistics)
        return int(found["count"]) - int(found["successes"])
    except (StorageError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{statistics} is damaged: {error}") from error
