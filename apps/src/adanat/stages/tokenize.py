"""Stage `tokenize`: every split as a memory-mapped store of codes."""

import torch
from torch import Tensor
from vqtok import Tokenizer, TokenStore, TokenStoreWriter

from adanat.data import SPLITS, ImageSet
from adanat.errors import StageError
from adanat.generation import from_uint8
from adanat.progress import ProgressReporter
from adanat.run import Run

_BATCH_SIZE = 500


def tokenize(run: Run) -> None:
    """Encode all images once; labels lie beside the codes."""
    stage = run.stages.tokens
    if stage.is_done():
        return
    tokenizer = run.tokenizer()
    with stage:
        counts = {}
        for split in SPLITS:
            images = run.images(split)
            _write_store(run, tokenizer, split, images)
            counts[split] = len(images.labels)
        stage.finish({"tokens": counts})


def _write_store(run: Run, tokenizer: Tokenizer, split: str, data: ImageSet) -> None:
    path = run.folder.token_store(split)
    if _is_complete(path, len(data.labels)):
        return
    writer = TokenStoreWriter(
        path,
        num_items=len(data.labels),
        grid_size=tokenizer.grid_size,
        codebook_size=tokenizer.codebook_size,
        conditions={"labels": ("int64", ())},
        metadata={"tokenizer": run.stages.tokenizer.fingerprint, "split": split},
    )
    with ProgressReporter(
        f"tokenize {split}", len(data.labels), completed=writer.num_written
    ) as progress:
        while writer.num_written < len(data.labels):
            start = writer.num_written
            stop = min(start + _BATCH_SIZE, len(data.labels))
            codes = _encode(tokenizer, data.images[start:stop], run.device)
            writer.write(start, codes, {"labels": data.labels[start:stop]})
            progress.advance(stop - start)
    writer.close()


def _encode(tokenizer: Tokenizer, images: Tensor, device: torch.device) -> Tensor:
    return tokenizer.encode(from_uint8(images.to(device))).cpu()


def _is_complete(path: object, num_items: int) -> bool:
    try:
        store = TokenStore(str(path))
    except (FileNotFoundError, ValueError):
        return False
    if len(store) != num_items:
        raise StageError(f"{path} holds {len(store)} items, expected {num_items}: delete it")
    return True
