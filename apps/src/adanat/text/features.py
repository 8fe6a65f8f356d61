"""Features of a data set's captions: encoded once and memory-mapped, or encoded when asked for."""

import hashlib
import json
import os
from collections.abc import Sequence
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
        captions: one an index.
        encoder: the text encoder.
    """

    def __init__(self, captions: Sequence[str], encoder: TextEncoder) -> None:
        self._captions = captions
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self._captions)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `CaptionFeatures`."""
        return self._encoder([self._captions[index] for index in indices.tolist()])


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

    Args:
        captions: at least one.
        encoder: the text encoder.
        cache_folder: holds one folder for each row of captions and encoder.

    Returns:
        The folder for `StoredCaptions`, with a `captions.json` that says what is in it.
    """
    digest = hashlib.sha256(json.dumps([encoder.name, *captions]).encode())
    folder = cache_folder / digest.hexdigest()[:32]
    if folder.is_dir():
        return folder
    half_written = cache_folder / f".{folder.name}.{os.getpid()}.tmp"
    half_written.mkdir(parents=True, exist_ok=True)
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
    return folder
