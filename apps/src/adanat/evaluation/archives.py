"""Images in archives, read one at a time: ADM's `.npz` layout and webdataset shards."""

import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from adanat.data import CAPTION, IMAGE, LABEL, Field
from adanat.errors import DataError
from adanat.evaluation.sources import Item, hash_files

IMAGES_MEMBER = "arr_0"
LABELS_MEMBER = "arr_1"
UNREADABLE = (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged or foreign `.npz` may raise."""
_NAME_LENGTH_OFFSET = 26  # in a local file header of the ZIP format


class NpzSource:
    """Images of an ADM-style file: `arr_0`, uint8 (N, H, W, 3), and labels in `arr_1` if present.

    The images are streamed; 50,000 of them at 256 pixels would fill 10 GB of memory.

    Raises:
        DataError: The file is no such archive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES_MEMBER}.npy") as member:
                shape, fortran, dtype = _read_header(member)
                self._header_size = member.tell()
                self._member = archive.getinfo(f"{IMAGES_MEMBER}.npy")
                names = archive.namelist()
            self._labels = _read_labels(path) if f"{LABELS_MEMBER}.npy" in names else None
        except UNREADABLE as error:
            raise DataError(f"{path} is no archive of images ({error})") from error
        if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3:
            raise DataError(
                f"{IMAGES_MEMBER} of {path} is {dtype} of shape {shape}; images are uint8 of "
                "shape (N, H, W, 3)"
            )
        self._shape = shape

    @property
    def description(self) -> str:
        return f"{len(self)} images of {self._path}"

    @cached_property
    def key(self) -> str:
        return hash_files([self._path], self._path.parent)

    def __len__(self) -> int:
        return self._shape[0]

    def items(self, start: int, stop: int) -> Iterator[Item]:
        size = int(np.prod(self._shape[1:]))
        try:
            with self._open() as file:
                file.seek(start * size, os.SEEK_CUR)
                for index in range(start, min(stop, len(self))):
                    data = file.read(size)
                    if len(data) < size:
                        raise DataError(f"{self._path} ends before image {index}: get it anew")
                    pixels = np.frombuffer(data, np.uint8).reshape(self._shape[1:])
                    yield Item(pixels, self._labels[index] if self._labels else None)
        except UNREADABLE as error:
            raise DataError(f"{self._path} is damaged ({error}): get it anew") from error

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """The images' bytes, positioned at the first of them."""
        if self._member.compress_type == zipfile.ZIP_STORED:
            # `zipfile` reads all that it skips, which for every chunk would be half the archive.
            with self._path.open("rb") as file:
                file.seek(_data_offset(file, self._member) + self._header_size)
                yield file
        else:
            with (
                zipfile.ZipFile(self._path) as archive,
                archive.open(self._member) as member,
            ):
                member.seek(self._header_size)
                yield member


class _Member(NamedTuple):
    """Where a file lies in a shard."""

    offset: int
    size: int


class _Sample(NamedTuple):
    shard: Path
    key: str
    members: Mapping[str, _Member]
    """By extension, without the first dot."""


class ShardSource:
    """Webdataset shards as img2dataset or `adanat data` write them, indexed by their tar headers.

    Args:
        shards: Tar files, read in the order given.

    Raises:
        DataError: A shard cannot be read, or holds no images.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = shards
        self._samples = [sample for shard in shards for sample in _index(shard)]
        if not self._samples:
            raise DataError(f"{shards[0]} and its like hold no images ({_endings(IMAGE)})")

    @property
    def description(self) -> str:
        return f"{len(self)} images of {len(self._shards)} shards beside {self._shards[0]}"

    @cached_property
    def key(self) -> str:
        return hash_files(self._shards, Path(os.path.commonpath([s.parent for s in self._shards])))

    def __len__(self) -> int:
        return len(self._samples)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for shard, samples in groupby(self._samples[start:stop], attrgetter("shard")):
            with shard.open("rb") as file:
                for sample in samples:
                    try:
                        fields = [_decode(file, sample, field) for field in (IMAGE, LABEL, CAPTION)]
                    except (OSError, ValueError) as error:
                        raise DataError(
                            f"bad sample in {shard}, sample {sample.key!r}: {error}"
                        ) from error
                    yield Item(*fields)


def _decode(file: IO[bytes], sample: _Sample, field: Field) -> Any:
    """A field of a sample, None where it has none."""
    for ending in field.extensions:
        if ending in sample.members:
            member = sample.members[ending]
            file.seek(member.offset)
            return field.decode(file.read(member.size))
    return None


def _index(shard: Path) -> Iterator[_Sample]:
    members: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isfile():
                    folder, _, name = entry.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    found = members.setdefault(f"{folder}/{stem}", {})
                    found[ending.lower()] = _Member(entry.offset_data, entry.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"shard {shard} cannot be read: {error}") from error
    for key, found in members.items():
        if any(ending in found for ending in IMAGE.extensions):
            yield _Sample(shard, key.removeprefix("/"), found)


def _data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's content begins: after its local header, a name and an extra field."""
    file.seek(member.header_offset + _NAME_LENGTH_OFFSET)
    name, extra = struct.unpack("<HH", file.read(4))
    return file.tell() + int(name) + int(extra)


def _endings(field: Field) -> str:
    return ", ".join(f".{ending}" for ending in field.extensions)


def _read_labels(path: Path) -> list[int]:
    with np.load(path, allow_pickle=False) as found:
        labels: list[int] = found[LABELS_MEMBER].astype(np.int64).tolist()
    return labels


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of the array that an open `.npy` member holds."""
    version = npy_format.read_magic(member)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(member)
    return npy_format.read_array_header_2_0(member)
