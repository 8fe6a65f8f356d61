"""Pooled features of many images, streamed in batches and cached by content.

Every distance in this package compares two sets of feature vectors. The network that makes them
is handed in as a callable, so that the metric's features are a choice of the caller.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float32]


class PooledFeatures(Protocol):
    """One feature vector an image."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map float images (B, 3, H, W) in [0, 1] to features (B, D)."""
        ...


def to_uint8(images: Tensor) -> Tensor:
    """Round float images in [0, 1] to the 256 levels of a saved image.

    Args:
        images: Float tensor of any shape; values outside [0, 1] are clamped.

    Returns:
        A uint8 tensor of the same shape.
    """
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)


def extract_features(
    images: Tensor,
    pooled: PooledFeatures,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> FloatArray:
    """Compute the features of uint8 images batch by batch.

    Both sides of a comparison come as uint8, so that generated images carry the same rounding as
    real ones.

    Args:
        images: uint8 tensor (N, 3, H, W).
        pooled: The feature network, already on `device` and in evaluation mode.
        batch_size: Images a forward pass.
        device: Where `pooled` runs.

    Returns:
        float32 array (N, D) on the host.

    Raises:
        ValueError: If `images` is not uint8 (N, 3, H, W) with N >= 1, if `batch_size` is below 1,
            or if the features are not (B, D) or not finite.
    """
    _check_images(images)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    parts: list[FloatArray] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            features = pooled(chunk.to(device).float() / 255)
            if features.ndim != 2 or len(features) != len(chunk):
                raise ValueError(
                    f"the feature network gave the shape {tuple(features.shape)} for "
                    f"{len(chunk)} images; ({len(chunk)}, D) is needed"
                )
            parts.append(features.float().cpu().numpy())
    result = np.concatenate(parts)
    if not np.isfinite(result).all():
        raise ValueError("the feature network gave values that are not finite")
    return result


def extract_features_cached(
    images: Tensor,
    pooled: PooledFeatures,
    *,
    extractor_name: str,
    cache_folder: Path,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> FloatArray:
    """`extract_features` that keeps the result in `cache_folder` under the content's hash.

    The key covers the pixels, their shape and `extractor_name`, which must therefore say all that
    changes the features (network, weights, input size). A file whose own hash does not match its
    record is computed again.
    """
    _check_images(images)
    digest = hashlib.sha256(f"{extractor_name}|{tuple(images.shape)}|".encode())
    digest.update(images.contiguous().cpu().numpy().data)
    key = digest.hexdigest()[:32]
    array_path, record_path = cache_folder / f"{key}.npy", cache_folder / f"{key}.json"
    if array_path.is_file() and record_path.is_file():
        cached = _read_checked(array_path, record_path)
        if cached is not None:
            return cached
    features = extract_features(images, pooled, batch_size=batch_size, device=device)
    cache_folder.mkdir(parents=True, exist_ok=True)
    temporary = cache_folder / f"{key}.{os.getpid()}.tmp.npy"
    np.save(temporary, features)
    record = {"extractor": extractor_name, "shape": features.shape, "sha256": _sha256(temporary)}
    # The record is written last: an array without one is never read.
    record_path.unlink(missing_ok=True)
    temporary.replace(array_path)
    temporary = cache_folder / f"{key}.{os.getpid()}.tmp.json"
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(record_path)
    return features


def _read_checked(array_path: Path, record_path: Path) -> FloatArray | None:
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["sha256"] != _sha256(array_path):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    array: FloatArray = np.load(array_path, allow_pickle=False)
    return array


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; "
            "uint8 of shape (N, 3, H, W) with N >= 1 is needed"
        )
