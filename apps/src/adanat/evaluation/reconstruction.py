"""Images as a tokenizer is given them, and what it makes of them."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from vqtok import Tokenizer

from adanat.data import load_split, read_index
from adanat.evaluation.models import feed_weights, stage_results
from adanat.evaluation.sources import Item, Origin, Source
from adanat.generation import from_uint8
from adanat.metrics import to_uint8
from adanat.prepare import adm_crop, open_split, read_prepared
from adanat.run_folder import RunFolder


class RunSplit:
    """The images of one split of a run: what its tokenizer was trained or validated on.

    Args:
        root: The run folder.
        split: `fit`, `validation` or `test`.
        image_size: Side in pixels; the run's data are padded or cropped to it as in the run.

    Raises:
        StageError: The run's data are not ready.
        DataError: They are damaged, have no such split, or do not fit the size.
    """

    def __init__(self, root: Path, split: str, image_size: int) -> None:
        folder = RunFolder(root).data
        prepared = stage_results(folder).get("prepared")
        if prepared is not None:
            self._set = open_split(Path(prepared), split, image_size)
            content = read_prepared(Path(prepared)).fingerprint
        else:
            self._set = load_split(folder, split, image_size)
            content = " ".join(shard.sha256 for shard in read_index(folder).splits[split])
        self.key = _hash(content, split, image_size)
        self.description = f"{len(self)} {split} images of {root}"

    def __len__(self) -> int:
        return len(self._set.images)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        labels, captions = self._set.labels, self._set.captions
        images = self._set.images[start:stop].permute(0, 2, 3, 1).numpy()
        for index, image in enumerate(images, start):
            yield Item(image, int(labels[index]), captions[index] if captions else None)


class CroppedSource:
    """The central squares of images at one size, cut as ADM does (`adm_crop`)."""

    def __init__(self, source: Source, image_size: int) -> None:
        self._source, self._size = source, image_size
        self.description = f"{source.description}, cropped to {image_size} pixels"

    @cached_property
    def key(self) -> str:
        return _hash(self._source.key, "adm_crop", self._size)

    def __len__(self) -> int:
        return len(self._source)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for item in self._source.items(start, stop):
            yield item._replace(image=adm_crop(Image.fromarray(item.image), self._size))


class ReconstructedSource:
    """What a tokenizer makes of images, rounded to 8 bits as if saved.

    Args:
        originals: Of the tokenizer's size.
        tokenizer: In evaluation mode.
        name: Where it comes from, for tables.
        batch_size: Images encoded and decoded at once.
    """

    def __init__(
        self, originals: Source, tokenizer: Tokenizer, *, name: str, batch_size: int
    ) -> None:
        self.originals = originals
        self._tokenizer, self._batch_size = tokenizer, batch_size
        self.description = f"reconstructions by the tokenizer of {name}: {originals.description}"

    @cached_property
    def key(self) -> str:
        """Hash of the weights and of all else that decides which images these are."""
        digest = hashlib.sha256(_hash(self.originals.key, self._batch_size).encode())
        digest.update(repr(self._tokenizer.config).encode())
        feed_weights([self._tokenizer], digest.update)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.originals)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for first in range(start, min(stop, len(self)), self._batch_size):
            yield from self._reconstruct(
                list(self.originals.items(first, min(first + self._batch_size, stop)))
            )

    def _reconstruct(self, items: list[Item]) -> Iterator[Item]:
        device = next(self._tokenizer.parameters()).device
        pixels = torch.stack([torch.tensor(item.image) for item in items]).permute(0, 3, 1, 2)
        codes = self._tokenizer.encode(from_uint8(pixels.to(device)))
        decoded = to_uint8(self._tokenizer.decode(codes)).permute(0, 2, 3, 1).cpu().numpy()
        grids = codes.flatten(1).cpu().numpy()
        for item, image, grid in zip(items, decoded, grids, strict=True):
            origin = Origin(item.image, grid, self._tokenizer.codebook_size)
            yield item._replace(image=image, origin=origin)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
