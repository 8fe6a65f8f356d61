"""Data sources and their splits."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from adanat.data import sources
from adanat.data.sources import SOURCES, load_source
from adanat.data.splits import SPLITS, split_indices
from adanat.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DIGITS_SPLITS = ["a6463202c138e874", "fb991927b80faa67", "626121836d43e0fc"]
"""Pins the splits: results are comparable only while these hold."""


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()[:16]


def test_digits() -> None:
    digits = load_source("digits")
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.dtype == np.uint8
    assert digits.images.max() == 255
    assert len(np.unique(digits.images)) == 17
    assert digits.class_names == tuple("0123456789")


def test_digits_splits_are_stratified_and_for_ever_the_same() -> None:
    digits = load_source("digits")
    splits = split_indices("digits", digits)
    assert tuple(splits) == SPLITS
    assert [len(splits[name]) for name in SPLITS] == [1197, 300, 300]
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1797))
    share = np.bincount(digits.labels) / 1797
    for indices in splits.values():
        counts = np.bincount(digits.labels[indices])
        assert np.abs(counts - share * len(indices)).max() < 1.5
    assert [_digest(splits[name]) for name in SPLITS] == DIGITS_SPLITS


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_fashion_mnist() -> None:
    fashion = load_source("fashion-mnist", DEBIAN_FOLDER)
    assert fashion.images.shape == (70_000, 28, 28)
    assert fashion.num_test == 10_000
    splits = split_indices("fashion-mnist", fashion)
    assert [len(splits[name]) for name in SPLITS] == [50_000, 10_000, 10_000]
    assert np.array_equal(splits["test"], np.arange(60_000, 70_000))
    assert np.intersect1d(splits["fit"], splits["validation"]).size == 0
    for name, each in (("fit", 5000), ("validation", 1000), ("test", 1000)):
        assert np.bincount(fashion.labels[splits[name]]).tolist() == [each] * 10


def test_an_unknown_source_is_told_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"unknown data source 'mnist'; known are digits, fashion"):
        load_source("mnist")
    with pytest.raises(DataError, match="no split is defined for 'mnist'"):
        split_indices("mnist", load_source("digits"))


def test_an_empty_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train-images.*apt install dataset-fashion-mnist"):
        load_source("fashion-mnist", tmp_path)


def test_digits_take_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave out --data-dir"):
        load_source("digits", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"other pictures"), "SHA-256"),
        (gzip.compress(b"torn" * 100)[:-9], "cannot unpack"),
        (b"no gzip at all", "cannot unpack"),
    ],
)
def test_files_with_other_content_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_source("fashion-mnist", tmp_path)
    assert "train-images-idx3-ubyte.gz" in str(caught.value)


def test_without_files_or_network_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(sources, "_FASHION_FOLDERS", (tmp_path / "absent",))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", no_network)
    with pytest.raises(DataError, match=r"no network.*apt install dataset-fashion-mnist"):
        SOURCES["fashion-mnist"](None)
