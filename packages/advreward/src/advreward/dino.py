"""Frozen features of a self-supervised vision transformer, as StyleGAN-T and AdaNAT use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from advreward.images import prepare_images
from advreward.weights import load_by_name

if TYPE_CHECKING:
    from timm.models import VisionTransformer

DINO_VIT_S16 = "timm/vit_small_patch16_224.dino"
"""DINO ViT-S/16 (arXiv 2104.14294) on the Hugging Face hub, the published backbone."""

STYLEGAN_T_BLOCKS = (2, 5, 8, 11)
"""Blocks of twelve whose outputs StyleGAN-T taps, beside the embedded patches: five maps."""

_PIXEL_MEAN = (0.485, 0.456, 0.406)
_PIXEL_STD = (0.229, 0.224, 0.225)


class FrozenViT(nn.Module):
    """Frozen token features of images in [0, 1].

    At each tap the class token is added to every patch token, so that all positions also know the
    whole image (the "add" readout of StyleGAN-T). The module stays in evaluation mode, none of its
    parameters asks for a gradient, and the features of an image depend on that image alone.

    Args:
        network: a vision transformer of timm with one class token, able to take images of
            ``input_size`` (built with ``dynamic_img_size=True`` for other sizes than its own).
        input_size: side in pixels to which images are resized, a multiple of the patch size.
        blocks: indices of the blocks that are tapped, ascending.

    Raises:
        ValueError: if ``network``, ``input_size`` or ``blocks`` cannot be served.
    """

    def __init__(
        self,
        network: VisionTransformer,
        *,
        input_size: int = 224,
        blocks: tuple[int, ...] = STYLEGAN_T_BLOCKS,
    ) -> None:
        super().__init__()
        depth = len(network.blocks)
        if (
            not blocks
            or sorted(set(blocks)) != list(blocks)
            or not 0 <= blocks[0] <= blocks[-1] < depth
        ):
            raise ValueError(f"blocks must be ascending in [0, {depth}), got {blocks}")
        if network.num_prefix_tokens != 1:
            raise ValueError(
                f"the network must have one class token, it has {network.num_prefix_tokens}"
            )
        patch_size = network.patch_embed.patch_size[0]
        if input_size < patch_size or input_size % patch_size:
            raise ValueError(
                f"input_size must be a multiple of the patch size {patch_size}, got {input_size}"
            )
        self.input_size = input_size
        self.blocks = blocks
        self.grid_size = input_size // patch_size
        self.network = network.eval().requires_grad_(False)
        self.eval()

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each feature map, by its name: what a `Discriminator` is configured with."""
        names = ("patches", *(f"block{index}" for index in self.blocks))
        return dict.fromkeys(names, self.network.embed_dim)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, so that a parent's ``train()`` cannot thaw it."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the tapped features.

        Args:
            images: (B, 3, H, W) in [0, 1], of any size.

        Returns:
            ``"patches"`` (the embedded patches with their positions), then ``"block2"``... ->
            (B, C, h, w) with h = w = input_size / patch size. Blocks past the last tap are not run.
        """
        pixels = prepare_images(images, self.input_size, _PIXEL_MEAN, _PIXEL_STD)
        weight = self.network.patch_embed.proj.weight
        x = self.network.patch_embed(pixels.to(weight.dtype))
        x = self.network.norm_pre(self.network._pos_embed(x))
        features = {"patches": self._readout(x)}
        for index, block in enumerate(self.network.blocks[: self.blocks[-1] + 1]):
            x = block(x)
            if index in self.blocks:
                features[f"block{index}"] = self._readout(x)
        return features

    def pooled(self, images: Tensor) -> Tensor:
        """Returns the class token after the final norm: (B, 3, H, W) in [0, 1] -> (B, C)."""
        pixels = prepare_images(images, self.input_size, _PIXEL_MEAN, _PIXEL_STD)
        weight = self.network.patch_embed.proj.weight
        tokens: Tensor = self.network.forward_features(pixels.to(weight.dtype))
        return tokens[:, 0]

    def _readout(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + hw, C), the class token first -> maps (B, C, h, w)."""
        x = tokens[:, 1:] + tokens[:, :1]
        grid: Tensor = x.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        return grid


def dino_vit_s16(
    weights: Path | str = DINO_VIT_S16,
    *,
    input_size: int = 224,
    blocks: tuple[int, ...] = STYLEGAN_T_BLOCKS,
) -> FrozenViT:
    """Builds the frozen features of DINO ViT-S/16.

    Args:
        weights: a file or a folder of weights with timm's names (the authors' own
            ``dino_deitsmall16_pretrain.pth`` has them, too) as `Path`, or the name of a repository
            on the Hugging Face hub as `str`, which timm downloads once.
        input_size: side to which images are resized; position embeddings are interpolated for
            other sizes than 224.
        blocks: the blocks tapped beside the embedded patches.

    Raises:
        FileNotFoundError: if a file is asked for that does not exist.
        ValueError: if the weights do not fit the architecture.
    """
    # Slow to import, and needed only where a backbone is built.
    import timm
    from timm.models import VisionTransformer

    name = "vit_small_patch16_224" if isinstance(weights, Path) else f"hf-hub:{weights}"
    network = timm.create_model(
        name, pretrained=isinstance(weights, str), num_classes=0, dynamic_img_size=True
    )
    if isinstance(weights, Path):
        load_by_name(network, weights)
    if not isinstance(network, VisionTransformer):
        raise ValueError(f"{weights} holds a {type(network).__name__}, not a vision transformer")
    return FrozenViT(network, input_size=input_size, blocks=blocks)
