"""Whole data sets for the tests to break."""

from pathlib import Path

import pytest
from adanat.recipes.benchmarks.published_formats import (
    jpeg,
    write_coco,
    write_imagenet,
    write_img2dataset,
)
from tiny_data_sets import picture


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """ImageNet as class folders: two classes of three pictures, two to test."""
    source = tmp_path / "imagenet"
    for label in range(2):
        for split, count in (("train", 3), ("val", 1)):
            folder = source / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                path = folder / f"n{label:08d}_{split}{number}.JPEG"
                path.write_bytes(jpeg(picture(10 * label + number).image))
    return source


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """ImageNet as published: tar files and devkit."""
    source = tmp_path / "published"
    write_imagenet(
        source, [picture(i, i % 2) for i in range(6)], [picture(9 + i, i % 2) for i in range(4)]
    )
    return source


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    source = tmp_path / "coco"
    write_coco(source, [picture(i) for i in range(5)], [picture(7 + i) for i in range(2)])
    return source


@pytest.fixture
def cc3m(tmp_path: Path) -> Path:
    source = tmp_path / "cc3m"
    write_img2dataset(source / "train", [picture(i) for i in range(5)], missing=2)
    write_img2dataset(source / "val", [picture(7 + i) for i in range(2)])
    return source
