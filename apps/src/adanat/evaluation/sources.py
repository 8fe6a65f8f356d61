"""Where judged and reference images come from: anything that gives image i, the same each time."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adanat.errors import DataError

ImageArray = NDArray[np.uint8]


class Origin(NamedTuple):
    """What a tokenizer made an image from."""

    image: ImageArray
    """(H, W, 3) uint8, of the same size."""
    codes: NDArray[np.int64]
    """(number of codes of an image,)."""
    codebook_size: int


class Item(NamedTuple):
    """One image with what is known about it."""

    image: ImageArray
    """(H, W, 3) uint8."""
    label: int | None = None
    caption: str | None = None
    origin: Origin | None = None
    """Of a reconstruction."""


class Source(Protocol):
    """Images by index."""

    @property
    def description(self) -> str:
        """A few words for tables and records."""

    @property
    def key(self) -> str:
        """Hash of the content: sources of one key give the same images."""

    def __len__(self) -> int:
        """Number of images."""

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """Images `start` to `stop` - 1 in order. Raises DataError for one that cannot be read."""


class FolderSource:
    """Image files below a folder, in the order of their paths.

    In subfolders, the name of an image's folder is its class. A text file beside an image, of the
    same name with the ending `.txt`, is its caption.

    Args:
        folder: Searched with all its subfolders for the endings that clean-fid knows.

    Raises:
        DataError: There is no image.
    """

    def __init__(self, folder: Path) -> None:
        from cleanfid.utils import EXTENSIONS  # with torchvision, which imports PyTorch's compiler

        self._folder = folder
        endings = {f".{ending.lower()}" for ending in EXTENSIONS if ending != "npy"}
        self._paths = sorted(
            (path for path in folder.rglob("*") if path.suffix.lower() in endings), key=str
        )
        if not self._paths:
            raise DataError(
                f"{folder} holds no images: files ending in {', '.join(sorted(endings))} are read"
            )
        parents = sorted({str(path.parent) for path in self._paths if path.parent != folder})
        self._labels = {parent: label for label, parent in enumerate(parents)}

    @property
    def description(self) -> str:
        return f"{len(self)} images of the folder {self._folder}"

    @cached_property
    def key(self) -> str:
        captions = [caption for path in self._paths if (caption := _caption(path)).is_file()]
        return hash_files([*self._paths, *captions], self._folder)

    def __len__(self) -> int:
        return len(self._paths)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for path in self._paths[start:stop]:
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise DataError(f"cannot read the image {path}: {error}") from error
            caption = _caption(path)
            yield Item(
                pixels,
                self._labels.get(str(path.parent)),
                caption.read_text(encoding="utf-8").strip() if caption.is_file() else None,
            )


def _caption(image: Path) -> Path:
    return image.with_suffix(".txt")


class FirstOf:
    """The first images of a source.

    Args:
        source: What to cut.
        count: How many to keep, at least 1.

    Raises:
        DataError: The source has fewer.
    """

    def __init__(self, source: Source, count: int) -> None:
        if not 1 <= count <= len(source):
            raise DataError(f"{count} images asked for, but there are {source.description}")
        self._source, self._count = source, count

    @property
    def description(self) -> str:
        return f"the first {self._count} of {self._source.description}"

    @property
    def key(self) -> str:
        # The chunks of a prefix are not those of the whole, so that they share no features.
        return hashlib.sha256(f"{self._source.key}|{self._count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def items(self, start: int, stop: int) -> Iterator[Item]:
        return self._source.items(start, min(stop, self._count))


def hash_files(paths: Sequence[Path], root: Path) -> str:
    """SHA-256 over the names (below `root`) and the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root)}\0{content}\n".encode())
    return digest.hexdigest()
