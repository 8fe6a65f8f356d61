"""Stage `tokenize`: every split as a memory-mapped store of codes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from vqtok import Tokenizer, TokenStore, TokenStoreWriter

from adanat.data import SPLITS, ImageSet
from adanat.errors import StageError
from adanat.generation import from_uint8
from adanat.progress import ProgressReporter
from adanat.run import Run

_MIRRORED_SPLIT = "fit"
_CONDITIONS: dict[str, tuple[str, tuple[int, ...]]] = {
    "labels": ("int64", ()),
    "images": ("int64", ()),  # index of the image within its split
    "mirrored": ("uint8", ()),
}
_MIN_AGREEMENT = 0.95  # between two encodings of an image, which rounding may tell apart


def tokenize(run: Run) -> None:
    """Encode all images once; beside an item's codes lie its label and which image it shows.

    With `tokens.mirrored`, mirrored copies of the fit split's images follow behind the originals.
    An interrupted stage goes on where it stopped. Every finished store is checked on a sample; the
    results hold the mean absolute error of its decoded codes as `l1`, by split.
    """
    stage = run.stages.tokens
    if stage.is_done():
        return
    tokenizer = run.tokenizer()
    with stage:
        if not run.engine.is_main:
            return
        counts, errors = {}, {}
        for split in SPLITS:
            mirrored = run.recipe.tokens.mirrored and split == _MIRRORED_SPLIT
            items = _Items(run.images(split), mirrored)
            store = _write_store(run, tokenizer, split, items)
            counts[split] = len(store)
            errors[split] = _verify(run, tokenizer, store, items)
        stage.finish({"tokens": counts, "l1": errors})


class _Items(NamedTuple):
    """What a store holds: the images of a split and, if asked for, their mirrored copies."""

    data: ImageSet
    mirrored: bool

    @property
    def num_items(self) -> int:
        return len(self.data.labels) * (2 if self.mirrored else 1)

    def images(self, indices: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 of items (B,)."""
        pictures = self.data.images[indices % len(self.data.labels)]
        copies = indices >= len(self.data.labels)
        pictures[copies] = pictures[copies].flip(-1)
        return pictures

    def conditions(self, indices: Tensor) -> dict[str, Tensor]:
        """What lies beside the codes of items (B,)."""
        images = indices % len(self.data.labels)
        copies = indices >= len(self.data.labels)
        return {"labels": self.data.labels[images], "images": images, "mirrored": copies.long()}


def _write_store(run: Run, tokenizer: Tokenizer, split: str, items: _Items) -> TokenStore:
    path = run.folder.token_store(split)
    if (complete := _complete_store(path, items.num_items)) is not None:
        return complete
    writer = TokenStoreWriter(
        path,
        num_items=items.num_items,
        grid_size=tokenizer.grid_size,
        codebook_size=tokenizer.codebook_size,
        conditions=_CONDITIONS,
        metadata={"tokenizer": run.stages.tokenizer.fingerprint, "split": split},
    )
    remaining = torch.arange(writer.num_written, items.num_items)
    with ProgressReporter(
        f"tokenize {split}", items.num_items, completed=writer.num_written
    ) as progress:
        for indices, images in _read_ahead(items, remaining.split(run.recipe.tokens.batch_size)):
            codes = tokenizer.encode(from_uint8(images.to(run.device))).cpu()
            writer.write(writer.num_written, codes, items.conditions(indices))
            progress.advance(len(indices))
    writer.close()
    return TokenStore(path)


def _read_ahead(items: _Items, batches: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices and images of each batch; the next one is read while the caller works on this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read ahead") as reader:
        waiting = [reader.submit(items.images, indices) for indices in batches[:1]]
        for position, indices in enumerate(batches):
            images = waiting.pop().result()
            waiting += [
                reader.submit(items.images, following)
                for following in batches[position + 1 : position + 2]
            ]
            yield indices, images


def _verify(run: Run, tokenizer: Tokenizer, store: TokenStore, items: _Items) -> float:
    """Mean absolute error of decoded codes, from items all over the store.

    Raises:
        StageError: The codes or conditions are not those of the images.
    """
    count = min(run.recipe.tokens.num_verified, items.num_items)
    sample = torch.linspace(0, items.num_items - 1, count).long()
    error, agreement = 0.0, 0.0
    for indices in sample.split(run.recipe.tokens.batch_size):
        codes, conditions = store.batch(indices)
        codes = codes.to(run.device)
        images = from_uint8(items.images(indices).to(run.device))
        expected = items.conditions(indices)
        if not all(torch.equal(conditions[name], expected[name]) for name in expected):
            raise StageError(f"{store.path} holds other labels than its images have: delete it")
        share = len(indices) / len(sample)
        error += share * F.l1_loss(tokenizer.decode(codes), images).item()
        agreement += share * (tokenizer.encode(images) == codes).float().mean().item()
    if agreement < _MIN_AGREEMENT:
        raise StageError(
            f"only {agreement:.0%} of a sample of the codes in {store.path} are those of its "
            "images: delete it"
        )
    return error


def _complete_store(path: Path, num_items: int) -> TokenStore | None:
    try:
        store = TokenStore(path)
    except (FileNotFoundError, ValueError):
        return None
    if len(store) != num_items:
        raise StageError(f"{path} holds {len(store)} items, expected {num_items}: delete it")
    return store
