"""Reconstructions beside their originals: errors of each image, and the codes between the two."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from adanat.errors import DataError
from adanat.evaluation.extractors import CODEBOOK_SIZE, CODES, L1, PSNR, SSIM, Identity
from adanat.evaluation.sources import Item, Origin
from adanat.metrics.features import FloatArray

_RANGE = 255.0


class PixelExtractor:
    """PSNR in decibels, SSIM and L1 of each image, and its codes; no network.

    Args:
        device: Where it computes.
    """

    identity = Identity(name="pixels", network="none: torchmetrics", resize="none, 8 bits")

    def __init__(self, *, device: torch.device) -> None:
        self._device = device

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        origins = [_origin(item) for item in items]
        made, real = (
            torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).float()
            for images in ([i.image for i in items], [o.image for o in origins])
        )
        psnr = peak_signal_noise_ratio(
            made, real, data_range=_RANGE, reduction="none", dim=(1, 2, 3)
        )
        # An image without any error counts as one with a single value off by one, not as infinity.
        best = 10 * np.log10(_RANGE**2 * made[0].numel())
        ssim = structural_similarity_index_measure(made, real, data_range=_RANGE, reduction="none")
        l1 = (made - real).abs().mean(dim=(1, 2, 3)) / _RANGE
        return {
            PSNR: psnr.clamp(max=best).cpu().numpy(),
            SSIM: torch.as_tensor(ssim).reshape(-1).cpu().numpy(),
            L1: l1.cpu().numpy(),
            CODES: np.stack([origin.codes for origin in origins]).astype(np.float32),
            CODEBOOK_SIZE: np.array([o.codebook_size for o in origins], dtype=np.float32),
        }


def _origin(item: Item) -> Origin:
    if item.origin is None:
        raise DataError("these images are no reconstructions: name a tokenizer by --reconstruct")
    return item.origin
