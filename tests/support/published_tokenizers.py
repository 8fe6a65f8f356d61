"""Small tokenizers in the published layouts: their weights' shapes, their layers' computations.

Written down once more from the published names, so that reading such weights has something to
agree with. What the formats share is here; each format's test puts its own network together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from vqtok import TokenizerConfig

Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, Tensor]

GROUPS = 4
CONFIG = TokenizerConfig(
    image_size=8,
    base_channels=8,
    channel_multipliers=(1, 2),
    codebook_size=5,
    codebook_dim=4,
    norm_groups=GROUPS,
)
LLAMAGEN_CONFIG = replace(
    CONFIG, architecture="llamagen", latent_channels=6, codebook_dim=3, normalize_codes=True
)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def random_weights(shapes: Shapes, *, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Normal numbers under the published names."""
    generator = torch.Generator().manual_seed(seed)
    return {key: scale * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def conv_shapes(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs, size, size)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def norm_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def block_shapes(name: str, inputs: int, outputs: int, llamagen: bool = False) -> Shapes:
    shapes = {
        **norm_shapes(f"{name}.norm1", inputs),
        **conv_shapes(f"{name}.conv1", inputs, outputs, 3, llamagen),
        **norm_shapes(f"{name}.norm2", outputs),
        **conv_shapes(f"{name}.conv2", outputs, outputs, 3, llamagen),
    }
    if inputs != outputs:
        shortcut_inputs = inputs if llamagen else outputs
        shapes |= conv_shapes(f"{name}.nin_shortcut", shortcut_inputs, outputs, 1, llamagen)
    return shapes


def attention_shapes(name: str, channels: int) -> Shapes:
    shapes = norm_shapes(f"{name}.norm", channels)
    for layer in ("q", "k", "v", "proj_out"):
        shapes |= conv_shapes(f"{name}.{layer}", channels, channels, 1)
    return shapes


def maskgit_shapes(middle: tuple[str, str], upsample: str) -> Shapes:
    return {
        **conv_shapes("encoder.conv_in", 3, 8, 3, bias=False),
        **block_shapes("encoder.down.0.block.0", 8, 8),
        **block_shapes("encoder.down.1.block.0", 8, 16),
        **block_shapes(f"encoder.mid.{middle[0]}", 16, 16),
        **block_shapes(f"encoder.mid.{middle[1]}", 16, 16),
        **norm_shapes("encoder.norm_out", 16),
        **conv_shapes("encoder.conv_out", 16, 4, 1),
        **conv_shapes("decoder.conv_in", 4, 16, 3),
        **block_shapes(f"decoder.mid.{middle[0]}", 16, 16),
        **block_shapes(f"decoder.mid.{middle[1]}", 16, 16),
        **block_shapes("decoder.up.1.block.0", 16, 16),
        **conv_shapes(f"decoder.up.1.{upsample}", 16, 16, 3),
        **block_shapes("decoder.up.0.block.0", 16, 8),
        **norm_shapes("decoder.norm_out", 8),
        **conv_shapes("decoder.conv_out", 8, 3, 3),
        "quantize.embedding.weight": (5, 4),
    }


def llamagen_shapes() -> Shapes:
    shapes = {
        **conv_shapes("encoder.conv_in", 3, 8, 3),
        **block_shapes("encoder.conv_blocks.0.res.0", 8, 8, llamagen=True),
        **conv_shapes("encoder.conv_blocks.0.downsample.conv", 8, 8, 3),
        **block_shapes("encoder.conv_blocks.1.res.0", 8, 16, llamagen=True),
        **attention_shapes("encoder.conv_blocks.1.attn.0", 16),
        **norm_shapes("encoder.norm_out", 16),
        **conv_shapes("encoder.conv_out", 16, 6, 3),
        **conv_shapes("quant_conv", 6, 3, 1),
        "quantize.embedding.weight": (5, 3),
        **conv_shapes("post_quant_conv", 3, 6, 1),
        **conv_shapes("decoder.conv_in", 6, 16, 3),
        **conv_shapes("decoder.conv_blocks.0.upsample.conv", 16, 16, 3),
        **block_shapes("decoder.conv_blocks.1.res.0", 16, 8, llamagen=True),
        **block_shapes("decoder.conv_blocks.1.res.1", 8, 8, llamagen=True),
        **norm_shapes("decoder.norm_out", 8),
        **conv_shapes("decoder.conv_out", 8, 3, 3),
    }
    for index in range(2):
        shapes |= block_shapes(f"decoder.conv_blocks.0.res.{index}", 16, 16, llamagen=True)
        shapes |= attention_shapes(f"decoder.conv_blocks.0.attn.{index}", 16)
    for side in ("encoder", "decoder"):
        shapes |= block_shapes(f"{side}.mid.0", 16, 16, llamagen=True)
        shapes |= attention_shapes(f"{side}.mid.1", 16)
        shapes |= block_shapes(f"{side}.mid.2", 16, 16, llamagen=True)
    return shapes


VQGAN_SHAPES = maskgit_shapes(("block_1", "block_2"), "upsample.conv")
OPEN_MUSE_SHAPES = maskgit_shapes(("0", "1"), "upsample_conv")
LLAMAGEN_SHAPES = llamagen_shapes()


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    grouped = x.unflatten(1, (GROUPS, -1))
    mean = grouped.mean((2, 3, 4), keepdim=True)
    variance = grouped.var((2, 3, 4), keepdim=True, correction=0)
    x = ((grouped - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
    weight, bias = (state[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
    return weight * x + bias


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def block(state: State, name: str, x: Tensor, llamagen: bool = False) -> Tensor:
    h = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)))
    h = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", h)))
    if f"{name}.nin_shortcut.weight" in state:
        x = conv(state, f"{name}.nin_shortcut", x if llamagen else h)
    return x + h


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
