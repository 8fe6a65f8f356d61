"""Broken and unusual pictures: each docstring is a row of docs/broken-inputs.md."""

import io
import tarfile
from pathlib import Path

import numpy as np
from adanat.prepare import PreparedIndex, PreparedSplit, prepare_imagenet
from adanat.recipes.benchmarks.published_formats import jpeg
from PIL import Image
from tiny_data_sets import SIZE, picture, png, preparation


def imagenet_with(folders: Path, tmp_path: Path, data: bytes, name: str = "x") -> PreparedIndex:
    """Prepare with one more training picture of these bytes."""
    (folders / "train" / "n00000000" / f"{name}.JPEG").write_bytes(data)
    return prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def assert_skipped(index: PreparedIndex, reason: str) -> None:
    assert dict(index.counts["skipped"]) == {reason: 1}
    assert sum(index.splits.values()) == 8


def assert_used(index: PreparedIndex, tmp_path: Path) -> None:
    assert not index.counts["skipped"]
    assert sum(index.splits.values()) == 9
    for split in index.splits:  # every picture can be read
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        assert data.images(range(len(data))).shape == (len(data), 3, SIZE, SIZE)


def test_zero_bytes(folders: Path, tmp_path: Path) -> None:
    """A picture file of zero bytes | skipped, counted."""
    assert_skipped(imagenet_with(folders, tmp_path, b""), "the file is empty")


def test_cut_jpeg(folders: Path, tmp_path: Path) -> None:
    """A JPEG that is cut off | skipped, counted."""
    data = jpeg(picture(1).image)
    index = imagenet_with(folders, tmp_path, data[: len(data) // 2])
    assert_skipped(index, "the image cannot be decoded")


def test_html_page(folders: Path, tmp_path: Path) -> None:
    """An HTML error page saved as .JPEG | skipped, counted."""
    index = imagenet_with(folders, tmp_path, b"<html>404</html>")
    assert_skipped(index, "the file is no JPEG, PNG, WEBP image")


def test_gif(folders: Path, tmp_path: Path) -> None:
    """A GIF (or any format but JPEG, PNG, WebP) called .JPEG | skipped, counted."""
    buffer = io.BytesIO()
    picture(1).image.save(buffer, format="GIF")
    index = imagenet_with(folders, tmp_path, buffer.getvalue())
    assert_skipped(index, "the file is no JPEG, PNG, WEBP image")


def test_tracking_pixel(folders: Path, tmp_path: Path) -> None:
    """A picture of fewer than 8 pixels a side | skipped, counted."""
    index = imagenet_with(folders, tmp_path, png(Image.new("RGB", (1, 1))))
    assert_skipped(index, "the image has 1x1 pixels, fewer than 8 a side")


def test_decompression_bomb(folders: Path, tmp_path: Path) -> None:
    """A small file that claims 400 million pixels | skipped, counted; it is never unpacked."""
    index = imagenet_with(folders, tmp_path, png(Image.new("1", (20_000, 20_000))))
    assert_skipped(index, "the image cannot be decoded")


def test_cmyk(folders: Path, tmp_path: Path) -> None:
    """A CMYK JPEG | converted and used."""
    assert_used(imagenet_with(folders, tmp_path, jpeg(picture(1).image.convert("CMYK"))), tmp_path)


def test_sixteen_bits(folders: Path, tmp_path: Path) -> None:
    """A 16-bit PNG | its upper 8 bits are used."""
    values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    assert_used(imagenet_with(folders, tmp_path, png(Image.fromarray(values))), tmp_path)


def test_grey(folders: Path, tmp_path: Path) -> None:
    """A grey picture | repeated to three channels and used."""
    assert_used(imagenet_with(folders, tmp_path, jpeg(picture(1).image.convert("L"))), tmp_path)


def test_palette(folders: Path, tmp_path: Path) -> None:
    """A palette picture with transparency | resolved and used."""
    image = picture(1).image.convert("P")
    image.info["transparency"] = 0
    assert_used(imagenet_with(folders, tmp_path, png(image)), tmp_path)


def test_wrong_suffix(folders: Path, tmp_path: Path) -> None:
    """A PNG called .JPEG (ImageNet has one) | used, stored as .png."""
    assert_used(imagenet_with(folders, tmp_path, png(picture(1).image)), tmp_path)
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as archive:
        assert "x.png" in archive.getnames()


def test_dots_in_a_name(folders: Path, tmp_path: Path) -> None:
    """A file name with dots, at which webdataset would cut the key | used, the dots become _."""
    index = imagenet_with(folders, tmp_path, jpeg(picture(1).image), name="a.b.c")
    assert_used(index, tmp_path)
