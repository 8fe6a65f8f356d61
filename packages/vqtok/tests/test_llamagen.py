"""LlamaGen's tokenizer, computed once more from its weights."""

import torch
from published_tokenizers import (
    IMAGES,
    LLAMAGEN_CONFIG,
    LLAMAGEN_SHAPES,
    State,
    block,
    conv,
    doubled,
    norm,
    random_weights,
    swish,
)
from torch import Tensor
from torch.nn import functional as F
from vqtok import import_llamagen


def attention(state: State, name: str, x: Tensor) -> Tensor:
    h = norm(state, f"{name}.norm", x)
    q, k, v = (conv(state, f"{name}.{layer}", h).flatten(2) for layer in "qkv")
    weights = (torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5).softmax(2)
    mixed = torch.einsum("bcj,bij->bci", v, weights).view_as(x)
    return x + conv(state, f"{name}.proj_out", mixed)


def middle(state: State, side: str, x: Tensor) -> Tensor:
    x = block(state, f"{side}.mid.0", x, llamagen=True)
    x = attention(state, f"{side}.mid.1", x)
    return block(state, f"{side}.mid.2", x, llamagen=True)


def published_latent(state: State, images: Tensor) -> Tensor:
    x = conv(state, "encoder.conv_in", 2 * images - 1)
    x = block(state, "encoder.conv_blocks.0.res.0", x, llamagen=True)
    down = "encoder.conv_blocks.0.downsample.conv"
    x = F.conv2d(F.pad(x, (0, 1, 0, 1)), state[f"{down}.weight"], state[f"{down}.bias"], stride=2)
    x = block(state, "encoder.conv_blocks.1.res.0", x, llamagen=True)
    x = attention(state, "encoder.conv_blocks.1.attn.0", x)
    x = middle(state, "encoder", x)
    x = conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)))
    return conv(state, "quant_conv", x)


def published_decoded(state: State, codes: Tensor) -> Tensor:
    codebook = state["quantize.embedding.weight"]
    vectors = (codebook / codebook.norm(dim=1, keepdim=True))[codes].movedim(3, 1)
    x = conv(state, "decoder.conv_in", conv(state, "post_quant_conv", vectors))
    x = middle(state, "decoder", x)
    for index in range(2):
        x = block(state, f"decoder.conv_blocks.0.res.{index}", x, llamagen=True)
        x = attention(state, f"decoder.conv_blocks.0.attn.{index}", x)
    x = conv(state, "decoder.conv_blocks.0.upsample.conv", doubled(x))
    for index in range(2):
        x = block(state, f"decoder.conv_blocks.1.res.{index}", x, llamagen=True)
    x = conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)))
    return (x + 1) / 2


@torch.no_grad()
def test_same_numbers_as_published() -> None:
    state = random_weights(LLAMAGEN_SHAPES, seed=2, scale=0.3)
    tokenizer = import_llamagen(state, LLAMAGEN_CONFIG)
    latent = published_latent(state, IMAGES)
    torch.testing.assert_close(tokenizer.latent(IMAGES), latent, rtol=1e-4, atol=1e-5)

    codebook = state["quantize.embedding.weight"]
    directions, units = F.normalize(latent, dim=1), F.normalize(codebook, dim=1)
    distances = (directions[:, None] - units[None, :, :, None, None]).square().sum(2)
    assert torch.equal(tokenizer.encode(IMAGES), distances.argmin(1))

    codes = torch.randint(0, 5, (2, 4, 4), generator=torch.Generator().manual_seed(3))
    expected = published_decoded(state, codes)
    decoded = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokenizer.decode(codes), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)
