"""Image data sets as their publishers ship them, read into memory and checked."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adanat.errors import DataError

_FASHION_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"),)  # Debian's dataset-fashion-mnist
_FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Checksums are of the content: publishers pack the same content with different gzip headers.
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
_FASHION_HELP = (
    "Install it with `apt install dataset-fashion-mnist`, or give --data-dir a folder with "
    + ", ".join(_FASHION_FILES)
    + " from https://github.com/zalandoresearch/fashion-mnist."
)


class SourceImages(NamedTuple):
    """A whole data set in its publisher's order."""

    images: NDArray[np.uint8]
    """(N, H, W) grey values."""
    labels: NDArray[np.int64]
    """(N,) in [0, number of classes)."""
    class_names: tuple[str, ...]
    num_test: int
    """The last ``num_test`` items are the publisher's test set; 0 when there is none."""


def load_source(name: str, data_dir: Path | None = None) -> SourceImages:
    """Read a data set by name.

    Args:
        name: One of ``SOURCES``.
        data_dir: Folder of the data set's files, for sources that have files.

    Raises:
        DataError: Unknown name, or files that are missing or not the published ones.
    """
    if name not in SOURCES:
        raise DataError(f"unknown data source {name!r}; known are {', '.join(SOURCES)}")
    return SOURCES[name](data_dir)


def load_digits(data_dir: Path | None = None) -> SourceImages:
    """1,797 digits of 8x8 pixels from scikit-learn's own files; 17 grey levels become 0 to 255."""
    if data_dir is not None:
        raise DataError(f"digits come with scikit-learn: leave out --data-dir (got {data_dir})")
    from sklearn import datasets  # slow to import, and only this source needs it

    bunch = datasets.load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    return SourceImages(images, bunch.target.astype(np.int64), tuple("0123456789"), num_test=0)


def load_fashion_mnist(data_dir: Path | None = None) -> SourceImages:
    """70,000 pictures of clothes, 28x28 pixels: 60,000 to train, then 10,000 to test.

    Taken from ``data_dir`` when given, else from the Debian package's folder, else downloaded by
    torchvision into the user's cache.

    Raises:
        DataError: Files are missing or their content is not the published one.
    """
    folder = _fashion_folder() if data_dir is None else data_dir
    missing = [name for name in _FASHION_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} has no {', '.join(missing)}. {_FASHION_HELP}")
    content = {name: _read_gzip(folder / name, sha) for name, sha in _FASHION_FILES.items()}
    pixels = [_after_header(content[f"{part}-images-idx3-ubyte.gz"], 16) for part in _PARTS]
    labels = [_after_header(content[f"{part}-labels-idx1-ubyte.gz"], 8) for part in _PARTS]
    return SourceImages(
        np.concatenate(pixels).reshape(-1, 28, 28),
        np.concatenate(labels).astype(np.int64),
        _FASHION_CLASSES,
        num_test=len(labels[1]),
    )


_PARTS = ("train", "t10k")

SOURCES: dict[str, Callable[[Path | None], SourceImages]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
}
"""How to read each data set, by name."""


def _after_header(content: bytes, header: int) -> NDArray[np.uint8]:
    """The values of an IDX file; the checksum has vouched for its header."""
    return np.frombuffer(content, dtype=np.uint8, offset=header)


def _read_gzip(path: Path, sha256: str) -> bytes:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot unpack {path}: {error}. {_FASHION_HELP}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"the content of {path} has SHA-256 {found}, the published file {sha256}. "
            f"{_FASHION_HELP}"
        )
    return content


def _fashion_folder() -> Path:
    for folder in _FASHION_FOLDERS:
        if folder.is_dir():
            return folder
    return _download_fashion(Path.home() / ".cache" / "adanat")


def _download_fashion(cache: Path) -> Path:
    """Let torchvision download the files once; it checks their published MD5."""
    from torchvision.datasets import FashionMNIST  # slow to import, and seldom needed

    try:
        FashionMNIST(str(cache), download=True)
    except Exception as error:  # of urllib, torchvision or the file system
        raise DataError(f"cannot download Fashion-MNIST ({error}). {_FASHION_HELP}") from error
    return cache / "FashionMNIST" / "raw"
