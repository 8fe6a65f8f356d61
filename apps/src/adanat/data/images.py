"""A split of prepared shards as tensors in memory."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adanat.data.shards import (
    CAPTION,
    IMAGE,
    LABEL,
    BadSamples,
    Field,
    decode_image,
    decode_label,
    read_index,
    read_samples,
    verify_shard,
)
from adanat.errors import DataError


class ImageSet(NamedTuple):
    """Labelled images in the shards' order."""

    images: Tensor
    """(N, 3, H, W) uint8."""
    labels: Tensor
    """(N,) int64 in [0, number of classes)."""
    class_names: tuple[str, ...]
    captions: Sequence[str] = ()
    """One for each image where the data set has captions."""


def load_split(
    folder: Path,
    split: str,
    image_size: int | None = None,
    *,
    max_bytes: int = 4 * 2**30,
    max_bad_fraction: float = 0.001,
) -> ImageSet:
    """Read one split of ``prepare_shards``' folder.

    Args:
        folder: The folder of shards.
        split: ``fit``, ``validation`` or ``test``.
        image_size: Height and width of the result; a black border is added around smaller images
            (an odd remainder at the right and the bottom). None: as stored.
        max_bytes: Largest size of the image tensor.
        max_bad_fraction: Part of the split that may be undecodable, and is skipped with a warning.

    Raises:
        DataError: The split is unknown, a shard is missing or corrupt, the images do not fit into
            ``max_bytes`` or ``image_size``, or too many samples are bad.
    """
    index = read_index(folder)
    if split not in index.splits:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(index.splits)}")
    size = index.image_size if image_size is None else image_size
    if size < index.image_size:
        raise DataError(
            f"image_size is {size}, but images of {index.source} have {index.image_size} pixels "
            "a side and are only ever padded: give that or more"
        )
    shards = index.splits[split]
    count = sum(shard.num_samples for shard in shards)
    if (needed := count * 3 * size * size) > max_bytes:
        raise DataError(
            f"split {split!r} in {folder} needs {needed / 2**30:.1f} GiB of memory as "
            f"{size}x{size} images; at most {max_bytes / 2**30:.1f} GiB are allowed"
        )
    images = np.zeros((count, 3, size, size), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    start = (size - index.image_size) // 2
    inner = slice(start, start + index.image_size)
    fields = {
        "image": Field(IMAGE.extensions, partial(_decode_sized, size=index.image_size)),
        "label": Field(LABEL.extensions, partial(_decode_below, limit=len(index.class_names))),
    }
    if index.captioned:
        fields["caption"] = CAPTION
    captions: list[str] = []
    bad = BadSamples(limit=int(count * max_bad_fraction))
    read = 0
    for sample in read_samples([verify_shard(folder, shard) for shard in shards], fields, bad):
        images[read, :, inner, inner] = sample["image"].transpose(2, 0, 1)
        labels[read] = sample["label"]
        if index.captioned:
            captions.append(sample["caption"])
        read += 1
    if read + len(bad.found) != count:
        raise DataError(f"split {split!r} in {folder} has {read} samples, its index says {count}")
    if bad.found:
        warnings.warn(f"skipped {len(bad.found)} bad samples: {bad.found[0]}", stacklevel=2)
    return ImageSet(
        torch.from_numpy(images[:read]),
        torch.from_numpy(labels[:read]),
        index.class_names,
        tuple(captions),
    )


def _decode_sized(data: bytes, *, size: int) -> NDArray[np.uint8]:
    image = decode_image(data)
    if image.shape != (size, size, 3):
        raise ValueError(f"the image has {image.shape[:2]} pixels, the index says {(size, size)}")
    return image


def _decode_below(data: bytes, *, limit: int) -> int:
    label = decode_label(data)
    if not 0 <= label < limit:
        raise ValueError(f"the label is {label}; labels run from 0 to {limit - 1}")
    return label
