"""Images kept for other people's evaluators: PNG files, or one archive in ADM's layout."""

import os
import secrets
import shutil
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from adanat.checkpoints import atomic_write, atomic_write_text
from adanat.errors import DataError, StageError
from adanat.evaluation.archives import IMAGES_MEMBER, LABELS_MEMBER
from adanat.evaluation.sources import Item


class PngSink:
    """One PNG file an image, named by its index.

    Args:
        folder: Where they go; created when absent.
        key: The source's; files of another source are refused with StageError.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        _claim(folder / ".source", key)

    def has(self, start: int, stop: int) -> bool:
        return all(self._path(index).is_file() for index in range(start, stop))

    def take(self, start: int, items: Sequence[Item]) -> None:
        for index, item in enumerate(items, start):
            whole = self._folder / f".{index:09d}.tmp"
            Image.fromarray(item.image).save(whole, format="PNG")
            os.replace(whole, self._path(index))

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:09d}.png"


class NpzSink:
    """An archive of all images, `arr_0` uint8 (N, H, W, 3), with labels as `arr_1` where known.

    Batches wait in a folder beside it until `finish` joins them, so that an interrupted
    evaluation loses none.

    Args:
        path: The archive.
        key: The source's; an archive of another source is refused with StageError.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._parts = path.with_name(path.name + ".parts")
        _claim(path.with_name(path.name + ".source"), key)

    def has(self, start: int, stop: int) -> bool:
        if self._path.is_file():
            return True
        taken = 0
        for part in self._parts.glob("*.npz"):
            first, last = map(int, part.stem.split("-"))
            if start <= first < stop:
                taken += last - first
        return taken == stop - start

    def take(self, start: int, items: Sequence[Item]) -> None:
        shapes = {item.image.shape for item in items}
        if len(shapes) > 1:
            raise DataError(f"{self._path} holds images of one size only, but got {shapes}")
        images = np.stack([item.image for item in items])
        labels = np.array([-1 if item.label is None else item.label for item in items])

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, images=images, labels=labels)

        atomic_write(self._parts / f"{start:09d}-{start + len(items):09d}.npz", write)

    def finish(self) -> None:
        """Join the parts; one process calls it, once all have handed in theirs."""
        parts = sorted(self._parts.glob("*.npz"))
        if parts and not self._path.is_file():
            self._join(parts)
        if self._parts.is_dir():  # also of an evaluation that was killed after joining them
            shutil.rmtree(self._parts)

    def _join(self, parts: Sequence[Path]) -> None:
        ranges = [tuple(map(int, part.stem.split("-"))) for part in parts]
        if ranges[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(ranges)):
            raise DataError(f"the parts in {self._parts} do not join: delete them and run again")
        with np.load(parts[-1], allow_pickle=False) as last:
            count, size = ranges[-1][1], last["images"].shape[1:]
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *size)}
        labels: list[int] = []

        def write(path: Path) -> None:
            with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
                with archive.open(f"{IMAGES_MEMBER}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    for part in parts:
                        with np.load(part, allow_pickle=False) as arrays:
                            if arrays["images"].shape[1:] != size:
                                raise DataError(f"{self._path} holds images of one size only")
                            member.write(arrays["images"].tobytes())
                            labels.extend(arrays["labels"].tolist())
                if min(labels) >= 0:
                    with archive.open(f"{LABELS_MEMBER}.npy", "w") as member:
                        np.lib.format.write_array(member, np.array(labels, dtype=np.int64))

        atomic_write(self._path, write)


def _claim(marker: Path, key: str) -> None:
    """Note whose images these are, or refuse if they are another source's."""
    if not marker.is_file():
        # All processes come at once: each writes under a name of its own.
        whole = marker.with_name(f".{secrets.token_hex(4)}{marker.name}")
        atomic_write_text(whole, key)
        whole.replace(marker)
    elif marker.read_text() != key:
        raise StageError(
            f"{marker} says that the images beside it are another source's: name another place"
        )
