"""Prepared splits in the form in which the stages take images."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from adanat.data import ImageSet
from adanat.prepare.reading import PreparedSplit, SplitCaptions, SplitImages


def open_split(folder: Path, split: str, image_size: int) -> ImageSet:
    """One split of a prepared folder.

    Pictures and captions are read when they are indexed: `images` takes index tensors and slices
    like the tensor (N, 3, S, S) that it stands for, and knows its length. Of data with several
    captions an image, every caption of the images to learn from is an item of its own; other splits
    have the first.

    Raises:
        DataError: The folder is not prepared, or not what its index says.
    """
    data = PreparedSplit(folder, split, image_size)
    per_image = max(1, data.index.captions_per_image) if split == "fit" else 1
    labels = data.labels if data.index.class_names else torch.zeros(len(data), dtype=torch.int64)
    return ImageSet(
        images=cast(Tensor, SplitImages(data, per_image)),
        labels=labels.repeat_interleave(per_image),
        class_names=data.index.class_names or ("any",),
        captions=SplitCaptions(data, per_image) if data.index.captions_per_image else (),
    )


def item_names(images: Tensor, items: Sequence[int]) -> list[str]:
    """What a user finds items of `ImageSet.images` by: their keys in shards, else their numbers."""
    found: object = images  # a `SplitImages` may stand for the tensor
    return found.keys(items) if isinstance(found, SplitImages) else [str(item) for item in items]


def item_captions(captions: Sequence[str], items: Sequence[int]) -> Sequence[str]:
    """Captions of items of `ImageSet.captions`; those of prepared data are read together."""
    if isinstance(captions, SplitCaptions):
        return captions.take(items)
    return [captions[item] for item in items]
