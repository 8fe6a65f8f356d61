"""What a benchmark's networks cost: parameters, and operations of a forward pass of one sample.

Operations of the tokenizer are counted by torch on tensors without data, those of the transformers
follow from their sizes; both ways are tested against each other.
"""

from typing import NamedTuple

import torch
from natgen import NAT, NATConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vqtok import Tokenizer

from adanat.recipes.base import Recipe


class Forward(NamedTuple):
    """A network's cost."""

    parameters: int
    flops: float
    """Of a forward pass of one sample."""


class TextTower(NamedTuple):
    """Sizes of a text encoder."""

    depth: int
    width: int


_OPENCLIP_BIGG = TextTower(32, 1280)
_TEXT_TOWERS = {
    "clip:openai/clip-vit-large-patch14": TextTower(12, 768),
    "clip:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _OPENCLIP_BIGG,
}


def text_tower(recipe: Recipe) -> TextTower:
    """Sizes of the recipe's text encoder; those of the largest one where it is not known."""
    return _TEXT_TOWERS.get(recipe.text.encoder or "", _OPENCLIP_BIGG)


def text_flops(recipe: Recipe) -> float:
    """24 x depth x width^2 x tokens + 4 x depth x tokens^2 x width operations for a caption."""
    (depth, width), tokens = text_tower(recipe), recipe.text.num_tokens
    return float(24 * depth * width**2 * tokens + 4 * depth * tokens**2 * width)


def transformer_cost(config: NATConfig) -> Forward:
    """Parameters, and 2 x parameters x positions + 4 x blocks x positions^2 x width operations.

    A multiplication and an addition are two operations. Embedding tables cost nothing, except the
    codes' one, which also makes the logits.
    """
    with torch.device("meta"):
        model = NAT(config)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
    codes = config.codebook_size * config.embed_dim
    positions = num_positions(config)
    image_positions = positions - config.num_context_tokens
    dense = sum(p.numel() for p in weights if p.shape[0] != 1)
    attention = 4 * (config.depth + 1) * positions**2 * config.embed_dim
    patches = config.patch_size**2
    flops = 2 * dense * positions + attention + 2 * codes * image_positions * patches
    return Forward(sum(p.numel() for p in model.parameters()), float(flops))


def num_positions(config: NATConfig) -> int:
    """Places that a pass looks at: patches of the image and the condition's tokens."""
    height, width = config.grid_size
    return height * width // config.patch_size**2 + config.num_context_tokens


def nat_config(recipe: Recipe) -> NATConfig:
    """Sizes of a benchmark's transformer."""
    by_class = recipe.text.encoder is None
    return NATConfig(
        codebook_size=recipe.tokenizer.model.codebook_size,
        grid_size=recipe.tokenizer.model.grid_size,
        patch_size=recipe.generator.patch_size,
        embed_dim=recipe.generator.embed_dim,
        depth=recipe.generator.depth,
        num_heads=recipe.generator.num_heads,
        num_classes=recipe.data.num_classes if by_class else None,
        context_dim=None if by_class else text_tower(recipe).width,
        num_context_tokens=1 if by_class else recipe.text.num_tokens,
    )


def tokenizer_cost(recipe: Recipe) -> tuple[Forward, Forward]:
    """Encoder and decoder, counted by torch on tensors without data."""
    size, (height, width) = recipe.data.image_size, recipe.tokenizer.model.grid_size
    with torch.device("meta"):
        model = Tokenizer(recipe.tokenizer.model)
        inputs = (
            (model.encoder, torch.empty(1, 3, size, size)),
            (model.decoder, torch.empty(1, recipe.tokenizer.model.codebook_dim, height, width)),
        )
        found = []
        for module, argument in inputs:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                module(argument)
            parameters = sum(p.numel() for p in module.parameters())
            found.append(Forward(parameters, float(counter.get_total_flops())))
    return found[0], found[1]
