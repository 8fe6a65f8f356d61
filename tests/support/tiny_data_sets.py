"""Tiny data sets in the publishers' formats, for the tests that break them."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from adanat.prepare import Preparation, PreparedIndex, prepare_cc3m
from adanat.recipes.benchmarks.published_formats import Picture
from PIL import Image

SIZE = 16
"""Side at which pictures are read."""


def picture(seed: int, label: int = 0, *captions: str) -> Picture:
    """Noise, 24 pixels wide and 20 high."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Picture(Image.fromarray(pixels), label, captions or (f"picture {seed}",) * 5)


def png(image: Image.Image) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def preparation(tmp_path: Path, max_bad_fraction: float = 0.5) -> Preparation:
    """Into ``tmp_path/out``, in this process; a few bad items of many are allowed."""
    return Preparation(
        output=tmp_path / "out",
        num_validation=2,
        workers=0,
        items_per_shard=4,
        max_bad_fraction=max_bad_fraction,
    )


def prepare_shards(source: Path, tmp_path: Path) -> PreparedIndex:
    """Prepare img2dataset's shards in ``source/train`` and ``source/val``."""
    return prepare_cc3m(
        [str(source / "train" / "*.tar")],
        [str(source / "val" / "*.tar")],
        preparation(tmp_path),
    )


def rewrite_tar(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Let `change` edit the members of a tar file."""
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    change(files)
    write_tar(path, files)


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a tar file of these members."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
