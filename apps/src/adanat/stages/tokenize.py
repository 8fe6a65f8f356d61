"""Stage `tokenize`: every split as a memory-mapped store of codes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from vqtok import Tokenizer, TokenStore, TokenStoreWriter

from adanat.batch_sharing import own_share
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
    The processes share the encoding; an interrupted stage goes on where it stopped, in any number
    of them. Every finished store is checked on a sample; the results hold the mean absolute error
    of its decoded codes as `l1`, by split.
    """
    stage = run.stages.tokens
    if stage.is_done():
        return
    tokenizer = run.tokenizer()
    with stage:
        counts, errors = {}, {}
        for split in SPLITS:
            mirrored = run.recipe.tokens.mirrored and split == _MIRRORED_SPLIT
            items = _Items(run.images(split), mirrored)
            _write_store(run, tokenizer, split, items)
            if run.engine.is_main:
                store = TokenStore(run.folder.token_store(split))
                counts[split] = len(store)
                errors[split] = _verify(run, tokenizer, store, items)
        if run.engine.is_main:
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


def _write_store(run: Run, tokenizer: Tokenizer, split: str, items: _Items) -> None:
    """Encode what is not encoded yet: every process its share, written by the main one."""
    engine = run.engine
    writer = _open_writer(run, tokenizer, split, items.num_items) if engine.is_main else None
    done = items.num_items if writer is None else writer.num_written
    done = -engine.largest(-done)  # of all processes, the main one alone may have less
    batches = torch.arange(done, items.num_items).split(
        run.recipe.tokens.batch_size * engine.num_processes
    )
    shares = tuple(own_share(engine, batch) for batch in batches)
    with ProgressReporter(
        f"tokenize {split}", items.num_items, completed=done, shown=engine.is_main
    ) as progress:
        for batch, images in zip(batches, _read_ahead(items, shares), strict=True):
            codes = engine.gather(tokenizer.encode(from_uint8(images.to(run.device)))).cpu()
            if writer is not None:
                writer.write(writer.num_written, codes[: len(batch)], items.conditions(batch))
            progress.advance(len(batch))
    if writer is not None:
        writer.close()


def _open_writer(
    run: Run, tokenizer: Tokenizer, split: str, num_items: int
) -> TokenStoreWriter | None:
    """What writes the rest of a store; None where it is complete."""
    path = run.folder.token_store(split)
    if _is_complete(path, num_items):
        return None
    return TokenStoreWriter(
        path,
        num_items=num_items,
        grid_size=tokenizer.grid_size,
        codebook_size=tokenizer.codebook_size,
        conditions=_CONDITIONS,
        metadata={"tokenizer": run.stages.tokenizer.fingerprint, "split": split},
    )


def _read_ahead(items: _Items, batches: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Images of each batch; the next one is read while the caller works on this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read ahead") as reader:
        waiting = [reader.submit(items.images, indices) for indices in batches[:1]]
        for position in range(len(batches)):
            images = waiting.pop().result()
            waiting += [
                reader.submit(items.images, following)
                for following in batches[position + 1 : position + 2]
            ]
            yield images


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


def _is_complete(path: Path, num_items: int) -> bool:
    try:
        store = TokenStore(path)
    except (FileNotFoundError, ValueError):
        return False
    if len(store) != num_items:
        raise StageError(f"{path} holds {len(store)} items, expected {num_items}: delete it")
    return True
