"""Small pictures for a page: strips of images and maps of revealed tokens, as PNG data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from adanat.report_data import ImageArray, MaskArray

MAX_SIDE = 128
"""Images with a longer side are shrunk, so that a page of many samples stays light."""

_MASKED = (232, 235, 241)
_KEPT = (150, 160, 182)
_NEW = (79, 70, 229)
_PAPER = (255, 255, 255)


def strip(images: ImageArray, *, gap: int = 1) -> ImageArray:
    """Lay images (K, 3, H, W) side by side on white: (H, K * W + (K - 1) * gap, 3)."""
    tiles = [_tile(image) for image in images]
    height, width, _ = tiles[0].shape
    sheet = np.full((height, len(tiles) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for position, tile in enumerate(tiles):
        left = position * (width + gap)
        sheet[:, left : left + width] = tile
    return sheet


def token_map(revealed: MaskArray, before: MaskArray | None, *, cell: int = 8) -> ImageArray:
    """Draw which tokens are kept after a step: pale masked, grey kept, coloured newly kept.

    Args:
        revealed: bool (h, w) after the step.
        before: The same after the step before; None at the first.
        cell: Pixels a token, with one of them the gap.

    Returns:
        uint8 (h * cell, w * cell, 3).
    """
    known = np.zeros_like(revealed) if before is None else before
    colours = np.where(
        revealed[..., None],
        np.where(known[..., None], np.array(_KEPT), np.array(_NEW)),
        np.array(_MASKED),
    ).astype(np.uint8)
    picture = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    picture[cell - 1 :: cell] = _PAPER
    picture[:, cell - 1 :: cell] = _PAPER
    return picture


def png_uri(picture: ImageArray) -> str:
    """Encode a picture (H, W, 3) as a `data:image/png` URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _tile(image: ImageArray) -> ImageArray:
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    height, width, _ = pixels.shape
    if max(height, width) <= MAX_SIDE:
        return pixels
    scale = MAX_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
