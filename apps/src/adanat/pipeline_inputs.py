"""What a pipeline's call makes of its arguments."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from natgen import DecodingPolicy
from PIL import Image
from torch import Tensor
from vqtok import Tokenizer


class GuidedSchedule:
    """A decoding policy with a guidance scale of its own at every step.

    Args:
        policy: chooses everything else.
        guidance_scale: at least 0.
    """

    def __init__(self, policy: DecodingPolicy, guidance_scale: float) -> None:
        if not 0 <= guidance_scale < math.inf:
            raise ValueError(f"guidance_scale must be finite and at least 0, got {guidance_scale}")
        self._policy = policy
        self._guidance_scale = guidance_scale

    @property
    def num_steps(self) -> int:
        """Number of decoding steps T."""
        return self._policy.num_steps

    def __call__(self, features: Tensor, timestep: int) -> dict[str, Tensor]:
        """Features (B, L, D) -> one (B,) tensor a component."""
        chosen = dict(self._policy(features, timestep))
        scale = torch.full_like(chosen["guidance_scale"], self._guidance_scale)
        return {**chosen, "guidance_scale": scale}

    def guidance_free(self, timestep: int) -> bool:
        """Whether the unconditional pass can be left out."""
        return self._guidance_scale == 0


def initial_tokens(
    tokenizer: Tokenizer,
    images: Tensor | Sequence[Image.Image] | None,
    mask: Tensor | None,
    count: int,
    mask_token_id: int,
) -> Tensor | None:
    """The codes of images to edit, with the mask token where they are to be drawn anew.

    Args:
        tokenizer: encodes the images, on its own device.
        images: (B, 3, H, W) in [0, 1], or pictures.
        mask: (B, h, w) or (h, w) bool over the token grid.
        count: number of conditions B.
        mask_token_id: one past the last code.

    Returns:
        (B, h, w) int64, or None without images.

    Raises:
        ValueError: one of both is missing, or their sizes do not fit.
    """
    if images is None and mask is None:
        return None
    if images is None or mask is None:
        raise ValueError("images and mask go together: give both to edit, or neither")
    device = next(tokenizer.parameters()).device
    pixels = images if isinstance(images, Tensor) else _to_tensor(images)
    if len(pixels) != count:
        raise ValueError(f"got {len(pixels)} images for {count} conditions")
    grid = tokenizer.grid_size
    if mask.dtype != torch.bool or tuple(mask.shape) not in (grid, (count, *grid)):
        raise ValueError(
            f"mask must be bool of shape {grid} or {(count, *grid)}, "
            f"got {mask.dtype} of {tuple(mask.shape)}"
        )
    codes = tokenizer.encode(pixels.to(device))
    return codes.masked_fill(mask.to(device), mask_token_id)


def _to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    if len({array.shape for array in arrays}) != 1:
        raise ValueError("images must be at least one, all of the same size")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
