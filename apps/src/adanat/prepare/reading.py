"""Prepared samples by index: any order, any process, no state to save."""

import multiprocessing
import tarfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from adanat.errors import DataError
from adanat.prepare.index import read_prepared, read_rows
from adanat.prepare.members import Member
from adanat.prepare.pictures import adm_crop, open_rgb
from adanat.prepare.scanning import decode_caption, split_name

_T = TypeVar("_T")
_AT_ONCE = 4096
"""Samples that wait to be read, at most: a split has millions."""


class PreparedSplit:
    """One split of a prepared data set; pictures are read and cropped when they are asked for.

    Args:
        folder: Where `prepare` left its index.
        split: ``fit``, ``validation`` or ``test``.
        image_size: Side of the pictures, cropped as ADM does.
        num_threads: How many pictures are read at a time.
        timeout: Seconds after which a picture that does not come is an error.

    Raises:
        DataError: The folder, the split or a shard is missing, a shard's size has changed, or the
            pictures were stored at another size.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        image_size: int,
        *,
        num_threads: int = 8,
        timeout: float = 60.0,
    ) -> None:
        self.index = read_prepared(folder)
        if split not in self.index.splits:
            raise DataError(
                f"{folder} has no split {split!r}; it has {', '.join(self.index.splits)}"
            )
        if self.index.image_size not in (None, image_size):
            raise DataError(
                f"{folder} holds pictures cropped to {self.index.image_size} pixels, but "
                f"{image_size} are asked for: prepare it without --image-size, or with that one"
            )
        self._paths = [str(folder / shard.path) for shard in self.index.shards]
        for path, shard in zip(self._paths, self.index.shards, strict=True):
            _check_size(Path(path), shard.num_bytes)
        self._rows = read_rows(folder, split)
        self._size = image_size
        self._timeout = timeout
        # Its threads are daemons: one that a dead mount holds does not keep the process alive.
        self._pool = ThreadPool(num_threads)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._rows)

    @property
    def labels(self) -> Tensor:
        """(N,) int64; -1 where samples have captions instead."""
        return torch.from_numpy(self._rows["label"].astype(np.int64))

    def images(self, indices: Sequence[int]) -> Tensor:
        """(B, 3, S, S) uint8. Raises DataError for a picture that does not come or is damaged."""
        if not len(indices):
            return torch.empty(0, 3, self._size, self._size, dtype=torch.uint8)
        return torch.stack(self._read_all(self._image, indices))

    def captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """The captions of each sample."""
        return self._read_all(self._captions, indices)

    def keys(self, indices: Sequence[int]) -> list[str]:
        """The names of samples in their shards, for messages."""
        return self._read_all(self._key, indices)

    def _read_all(self, read: Callable[[int], _T], indices: Sequence[int]) -> list[_T]:
        found: list[_T] = []
        for start in range(0, len(indices), _AT_ONCE):
            part = indices[start : start + _AT_ONCE]
            results = [self._pool.apply_async(read, (index,)) for index in part]
            for index, result in zip(part, results, strict=True):
                try:
                    found.append(result.get(self._timeout))
                except multiprocessing.TimeoutError:
                    raise DataError(
                        f"{self._where(index)} did not come within {self._timeout:g} s: is its "
                        "disk or network mount reachable?"
                    ) from None
        return found

    def _image(self, index: int) -> Tensor:
        row = self._rows[index]
        data = self._member(index, int(row["image_offset"]), int(row["image_size"])).read()
        try:
            pixels = adm_crop(open_rgb(data), self._size)
        except ValueError as error:
            raise DataError(
                f"{self._where(index)} is damaged since preparation: {error}"
            ) from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    def _captions(self, index: int) -> tuple[str, ...]:
        row = self._rows[index]
        data = self._member(index, int(row["text_offset"]), int(row["text_size"])).read()
        lines = decode_caption(data).split("\n")
        return tuple(lines) if self.index.captions_per_image > 1 else (" ".join(lines),)

    def _key(self, index: int) -> str:
        offset = int(self._rows[index]["image_offset"])
        header = self._member(index, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE).read()
        return split_name(tarfile.TarInfo.frombuf(header, "utf-8", "replace").name)[0]

    def _member(self, index: int, offset: int, size: int) -> Member:
        return Member(self._paths[int(self._rows[index]["shard"])], offset, size)

    def _where(self, index: int) -> str:
        row = self._rows[index]
        return (
            f"sample {index} (byte {int(row['image_offset'])} of {self._paths[int(row['shard'])]})"
        )


class SplitImages:
    """The pictures of a split in the place of a tensor (N, 3, S, S) that would not fit.

    Args:
        split: Whose pictures.
        repeats: Each stands this many times in a row, once for each of its captions.
    """

    def __init__(self, split: PreparedSplit, repeats: int = 1) -> None:
        self._split = split
        self._repeats = repeats

    def __len__(self) -> int:
        """Number of items."""
        return len(self._split) * self._repeats

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """Pictures (B, 3, S, S) uint8 of indices (B,), a mask (N,) or a slice; (3, S, S) of one."""
        if isinstance(index, int):
            return self[index : index + 1][0]
        if isinstance(index, slice):
            items = list(range(*index.indices(len(self))))
        else:
            items = (index.nonzero()[:, 0] if index.dtype == torch.bool else index).tolist()
        return self._split.images([item // self._repeats for item in items])

    def keys(self, items: Sequence[int]) -> list[str]:
        """The names of items' samples in their shards."""
        return self._split.keys([item // self._repeats for item in items])


class SplitCaptions(Sequence[str]):
    """The captions of a split in the place of a tuple, read when they are asked for.

    Args:
        split: Whose captions.
        repeats: Each sample gives its first so many, one behind the other.
    """

    def __init__(self, split: PreparedSplit, repeats: int = 1) -> None:
        self._split = split
        self._repeats = repeats

    def __len__(self) -> int:
        """Number of captions."""
        return len(self._split) * self._repeats

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """One caption, or those of a slice, which are read together."""
        chosen = range(len(self))[index]  # raises IndexError
        if isinstance(chosen, int):
            return self.take([chosen])[0]
        return self.take(chosen)

    def take(self, items: Sequence[int]) -> tuple[str, ...]:
        """The captions of items from 0 on, which are read together."""
        samples = sorted({item // self._repeats for item in items})
        captions = dict(zip(samples, self._split.captions(samples), strict=True))
        return tuple(captions[item // self._repeats][item % self._repeats] for item in items)

    def __iter__(self) -> Iterator[str]:
        """All of them, read together."""
        return iter(self[:])


def _check_size(path: Path, num_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"shard {path} is missing or unreadable: {error.strerror}") from error
    if found != num_bytes:
        raise DataError(
            f"shard {path} has {found} bytes, the index says {num_bytes}: "
            "fetch it again, or prepare the data again"
        )
