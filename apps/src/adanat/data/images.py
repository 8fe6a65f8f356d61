"""A split of prepared shards as tensors in memory."""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adanat.data.shards import IMAGE, LABEL, BadSamples, read_index, read_samples, verify_shard
from adanat.errors import DataError


class ImageSet(NamedTuple):
    """Labelled images in the shards' order."""

    images: Tensor
    """(N, 3, H, W) uint8."""
    labels: Tensor
    """(N,) int64 in [0, number of classes)."""
    class_names: tuple[str, ...]


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
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.int64)
    start = (size - index.image_size) // 2
    inner = slice(start, start + index.image_size)
    bad = BadSamples(limit=int(count * max_bad_fraction))
    paths = [verify_shard(folder, shard) for shard in shards]
    read = 0
    for sample in read_samples(paths, {"image": IMAGE, "label": LABEL}, bad):
        if not 0 <= sample["label"] < len(index.class_names):
            raise DataError(
                f"sample {sample['key']!r} of split {split!r} in {folder} has label "
                f"{sample['label']}; labels run from 0 to {len(index.class_names) - 1}"
            )
        # A copy, since Pillow's memory is read-only and torch has no such tensors.
        images[read, :, inner, inner] = torch.tensor(sample["image"]).permute(2, 0, 1)
        labels[read] = sample["label"]
        read += 1
    if read + len(bad.found) != count:
        raise DataError(f"split {split!r} in {folder} has {read} samples, its index says {count}")
    if bad.found:
        warnings.warn(f"skipped {len(bad.found)} bad samples: {bad.found[0]}", stacklevel=2)
    return ImageSet(images[:read], labels[:read], index.class_names)
