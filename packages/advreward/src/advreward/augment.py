"""Augmentation of what a discriminator learns from, real and fake alike.

Seeing both sides through the same random changes keeps a discriminator from learning its real
images by heart, and does not leak into the generator (DiffAugment, arXiv 2006.10738). No gradient
flows to the images: a policy is paid, not differentiated. Rewards never see an augmented image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from advreward.images import check_images


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How strongly images are changed; each field at 0 switches its change off.

    The defaults are DiffAugment's colours, translation and cutout and the crop of the published
    discriminator (StyleGAN-T's: 224 of 256 pixels, half the time).

    Attributes:
        flip_probability: of a left-right flip. Off by default: digits and letters do not survive.
        crop_probability: of a square crop, scaled back to the full size.
        crop_scale: side of the crop as a share of the image's, in (0, 1].
        max_translation: shifts by whole pixels up to this share of the side, black coming in.
        brightness: what is added to all channels lies within plus or minus this.
        saturation: the distance from grey is scaled by a factor within 1 plus or minus this.
        contrast: the distance from the image's mean is scaled likewise.
        cutout: side of a black square at a random position, as a share of the image's.
    """

    flip_probability: float = 0.0
    crop_probability: float = 0.5
    crop_scale: float = 0.875
    max_translation: float = 0.125
    brightness: float = 0.25
    saturation: float = 1.0
    contrast: float = 0.5
    cutout: float = 0.5

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if self.crop_scale == 0:
            raise ValueError("crop_scale must be above 0; crop_probability=0 switches crops off")


class Augmenter:
    """Changes each image of a batch by itself, at random.

    The draws come from a generator of its own on the CPU, so that they are the same on any device;
    `state_dict` keeps its place.

    Args:
        config: how strongly.
        seed: of the draws.
    """

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self.config = config
        self._generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Returns changed copies of images (B, 3, H, W) in [0, 1], in that range and as float32."""
        check_images(images)
        draws = torch.rand(len(images), 11, generator=self._generator).to(images.device)
        geometry, colour, window = draws[:, :6], draws[:, 6:9], draws[:, 9:]
        changed = self._move(images.float(), geometry)
        changed = self._recolour(changed, colour)
        return self._cut_out(changed, window)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the place in the stream of draws."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())

    def _move(self, images: Tensor, draws: Tensor) -> Tensor:
        """Flip, crop and translation, as one resampling; draws (B, 6)."""
        config = self.config
        flip = 1.0 - 2.0 * (draws[:, 0] < config.flip_probability).float()
        cropped = draws[:, 1] < config.crop_probability
        scale = torch.where(cropped, config.crop_scale, 1.0)
        sides = images.new_tensor([images.shape[3], images.shape[2]])
        # In units of half the side, as grid_sample counts; between the outermost pixels' centres.
        centre = (2.0 * draws[:, 2:4] - 1.0) * (1.0 - scale)[:, None] * (1.0 - 1.0 / sides)
        most = (config.max_translation * sides).floor()
        pixels = ((2.0 * most + 1.0) * draws[:, 4:6]).floor().minimum(2.0 * most) - most
        offset = centre + 2.0 * pixels / sides
        theta = images.new_zeros(len(images), 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = flip * scale, scale
        theta[:, :, 2] = offset
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    def _recolour(self, images: Tensor, draws: Tensor) -> Tensor:
        """Brightness, saturation and contrast; draws (B, 3)."""
        config = self.config
        signed = (2.0 * draws - 1.0).view(-1, 3, 1, 1, 1)
        images = images + config.brightness * signed[:, 0]
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * (1.0 + config.saturation * signed[:, 1])
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (1.0 + config.contrast * signed[:, 2])
        return images.clamp(0.0, 1.0)

    def _cut_out(self, images: Tensor, draws: Tensor) -> Tensor:
        """A black square, its centre anywhere in the image; draws (B, 2)."""
        inside = [
            _interval(side, round(self.config.cutout * side), draws[:, axis])
            for axis, side in enumerate(images.shape[2:])
        ]
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return images.masked_fill(square[:, None], 0.0)


def _interval(side: int, length: int, draws: Tensor) -> Tensor:
    """Which of `side` pixels lie in an interval around a random one: draws (B,) -> (B, side)."""
    start = (draws * side).floor()[:, None] - length // 2
    positions = torch.arange(side, device=draws.device)
    return (positions >= start) & (positions < start + length)
