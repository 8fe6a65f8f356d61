"""Features of a data set's captions: encoded once and memory-mapped, or encoded when asked for."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from natgen import TextEncoder
from numpy.lib.format import open_memmap
from torch import Tensor

from adanat.progress import ProgressReporter

_BATCH_SIZE = 256


class CaptionFeatures(Protocol):
    """Features of a row of captions."""

    def __len__(self) -> int:
        """How many captions there are."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B,) -> token features (B, N, C) and pooled features (B, P), float32."""


class EncodedCaptions:
    """Encodes captions whenever they are asked for: for sets whose features would fill the disk.

    Args:
        read: the captions of some indices.
        count: how many captions there are; behind them comes the empty one.
        encoder: the text encoder.
    """

    def __init__(
        self, read: Callable[[Sequence[int]], Sequence[str]], count: int, encoder: TextEncoder
    ) -> None:
        self._read = read
        self._count = count
        self._encoder = encoder

    def __len__(self) -> int:
        return self._count + 1

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `CaptionFeatures`."""
        wanted = indices.tolist()
        known = [index for index in wanted if index < self._count]
        found = dict(zip(known, self._read(known), strict=True))
        return self._encoder([found.get(index, "") for index in wanted])


class StoredCaptions:
    """Features in float16, memory-mapped from `tokens.npy` and `pooled.npy` of a folder.

    Args:
        folder: written by `store_captions`.
        device: where batches are put.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
        self._pooled = np.load(folder / "pooled.npy", mmap_mode="r", allow_pickle=False)
        self._device = torch.device(device)

    def __len__(self) -> int:
        return len(self._pooled)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `CaptionFeatures`."""
        rows = indices.cpu().numpy()
        tokens, pooled = (
            torch.from_numpy(array[rows]).to(self._device).float()
            for array in (self._tokens, self._pooled)
        )
        return tokens, pooled


def store_captions(captions: Sequence[str], encoder: TextEncoder, cache_folder: Path) -> Path:
    """Encode captions once; the result is found again by the captions and the encoder's name.

    Of several processes that ask for the same, one encodes while the others wait.

    Args:
        captions: at least one.
        encoder: the text encoder.
        cache_folder: holds one folder for each row of captions and encoder.

    Returns:
        The folder for `StoredCaptions`, with a `captions.json` that says what is in it.
    """
    digest = hashlib.sha256(json.dumps([encoder.name, *captions]).encode())
    folder = cache_folder / digest.hexdigest()[:32]
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, also by a kill
        if not folder.is_dir():
            _write_features(captions, encoder, folder)
    return folder


def _write_features(captions: Sequence[str], encoder: TextEncoder, folder: Path) -> None:
    half_written = folder.with_name(f".{folder.name}.tmp")
    half_written.mkdir(exist_ok=True)  # that of a killed process is written over
    shape = (len(captions), encoder.num_tokens, encoder.token_dim)
    tokens = open_memmap(half_written / "tokens.npy", "w+", np.float16, shape)
    pooled = open_memmap(
        half_written / "pooled.npy", "w+", np.float16, (len(captions), encoder.pooled_dim)
    )
    with ProgressReporter("encode captions", len(captions)) as progress:
        for start in range(0, len(captions), _BATCH_SIZE):
            part = captions[start : start + _BATCH_SIZE]
            of_tokens, of_captions = encoder(part)
            tokens[start : start + len(part)] = of_tokens.cpu().numpy()
            pooled[start : start + len(part)] = of_captions.cpu().numpy()
            progress.advance(len(part))
    tokens.flush()
    pooled.flush()
    description = {"encoder": encoder.name, "captions": len(captions), "first": captions[0]}
    (half_written / "captions.json").write_text(json.dumps(description, indent=2))
    half_written.replace(folder)  # whole or absent
