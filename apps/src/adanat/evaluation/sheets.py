"""Sheets of pictures: a grid of samples, their nearest real images, each class's best and worst."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adanat.checkpoints import atomic_write, atomic_write_json
from adanat.evaluation.figures import Sample
from adanat.evaluation.sources import ImageArray, Item, Source
from adanat.metrics import nearest_neighbours
from adanat.metrics.features import FloatArray
from adanat.pictures import strip

GRID_SIDE = 8
NUM_SUSPECTS = 8
NUM_NEIGHBOURS = 6
NUM_RANKED = 5
MAX_CLASSES = 10
_SHOWN_SIDE = 64  # smaller images are enlarged by a whole factor
_GAP = 2


def write_sheets(folder: Path, images: Source, sample: Sample | None, real: Source | None) -> None:
    """Write the sheets of one judged set.

    - `samples.png`: the first images.
    - `neighbours.png`: the samples that lie closest to a real image, each with its nearest real
      images in feature space: copies would stand out here. `neighbours.json` has the median
      distance of a sample to its nearest real image, and that of a real image to its nearest
      other one: where the first is far below the second, the generator copies.
    - `classes.png`: of each class (at most ten of them) the samples nearest to and farthest from
      real images, by the mean distance to their neighbours.

    Args:
        folder: Where they go.
        images: The judged images.
        sample: Their features and the reference's; without them only the first sheet is made.
        real: The real images; likewise.

    Raises:
        StorageError: A file cannot be written.
    """
    items = images.items(0, min(len(images), GRID_SIDE**2))
    first = [_enlarged(item) for item in items]
    _save(
        folder / "samples.png",
        _rows([first[at : at + GRID_SIDE] for at in range(0, len(first), GRID_SIDE)]),
    )
    if sample is None or real is None:
        return
    count = min(NUM_NEIGHBOURS, len(real) - 1)
    distances, indices = nearest_neighbours(sample.features, sample.real.features, count=count)
    suspects = np.argsort(distances[:, 0], kind="stable")[:NUM_SUSPECTS]
    _save(
        folder / "neighbours.png",
        _rows([_read(images, [i]) + _read(real, indices[i].tolist()) for i in suspects.tolist()]),
    )
    own, _ = nearest_neighbours(sample.real.features, sample.real.features, count=2)
    atomic_write_json(
        folder / "neighbours.json",
        {
            "median_distance_to_real": float(np.median(distances[:, 0])),
            "median_distance_among_real": float(np.median(own[:, 1])),
            "closest": [
                {"sample": i, "real": int(indices[i, 0]), "distance": float(distances[i, 0])}
                for i in suspects.tolist()
            ],
        },
    )
    rows = _ranked(sample.store.labels(), distances.mean(axis=1))
    if rows:
        _save(folder / "classes.png", _rows([_read(images, row) for row in rows]))


def _ranked(labels: NDArray[np.int64], distances: FloatArray) -> list[list[int]]:
    """For each class its nearest samples, then its farthest ones; no rows without labels."""
    classes = np.unique(labels[labels >= 0])
    chosen = classes[np.linspace(0, len(classes) - 1, min(len(classes), MAX_CLASSES)).astype(int)]
    rows = []
    for label in chosen:
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(distances[members], kind="stable")]
        shown = min(NUM_RANKED, len(order) // 2)
        if shown:
            rows.append(order[:shown].tolist() + order[-shown:].tolist())
    return rows


def _read(source: Source, indices: Iterable[int]) -> list[ImageArray]:
    """Images of a source by index, as they are shown."""
    return [_enlarged(next(source.items(index, index + 1))) for index in indices]


def _enlarged(item: Item) -> ImageArray:
    """An image as (3, H, W), enlarged where it is small."""
    image = item.image.transpose(2, 0, 1)
    factor = max(1, _SHOWN_SIDE // image.shape[2])
    return image.repeat(factor, axis=1).repeat(factor, axis=2)


def _rows(rows: Sequence[Sequence[ImageArray]]) -> ImageArray:
    """Rows of images under one another on white, each image shown at the size of the first."""
    height, width = rows[0][0].shape[1:]
    strips = [strip(np.stack([_fit(i, height, width) for i in row]), gap=_GAP) for row in rows]
    widest = max(part.shape[1] for part in strips)
    padded = [
        np.pad(part, ((0, _GAP), (0, widest - part.shape[1]), (0, 0)), constant_values=255)
        for part in strips
    ]
    return np.concatenate(padded)


def _fit(image: ImageArray, height: int, width: int) -> ImageArray:
    if image.shape[1:] == (height, width):
        return image
    shown = Image.fromarray(image.transpose(1, 2, 0)).resize((width, height))
    return np.asarray(shown).transpose(2, 0, 1)


def _save(path: Path, picture: ImageArray) -> None:
    atomic_write(path, lambda temporary: Image.fromarray(picture).save(temporary, format="PNG"))
