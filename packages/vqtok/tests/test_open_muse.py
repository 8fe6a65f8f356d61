"""open-muse's MaskGitVQGAN, computed once more from its weights."""

import torch
from published_tokenizers import (
    CONFIG,
    IMAGES,
    OPEN_MUSE_SHAPES,
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
from vqtok import import_open_muse


def published_latent(state: State, images: Tensor) -> Tensor:
    x = block(state, "encoder.down.0.block.0", conv(state, "encoder.conv_in", images))
    x = block(state, "encoder.down.1.block.0", F.avg_pool2d(x, 2))
    for index in range(2):
        x = block(state, f"encoder.mid.{index}", x)
    return conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)))


def published_decoded(state: State, codes: Tensor) -> Tensor:
    x = conv(state, "decoder.conv_in", state["quantize.embedding.weight"][codes].movedim(3, 1))
    for name in ("mid.0", "mid.1", "up.1.block.0"):
        x = block(state, f"decoder.{name}", x)
    x = conv(state, "decoder.up.1.upsample_conv", doubled(x))
    x = block(state, "decoder.up.0.block.0", x)
    return conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)))


@torch.no_grad()
def test_same_numbers_as_published() -> None:
    state = random_weights(OPEN_MUSE_SHAPES, seed=2, scale=0.3)
    tokenizer = import_open_muse(state, CONFIG)
    latent = published_latent(state, IMAGES)
    torch.testing.assert_close(tokenizer.latent(IMAGES), latent, rtol=1e-4, atol=1e-5)

    codebook = state["quantize.embedding.weight"]
    distances = (latent[:, None] - codebook[None, :, :, None, None]).square().sum(2)
    assert torch.equal(tokenizer.encode(IMAGES), distances.argmin(1))

    codes = torch.randint(0, 5, (2, 4, 4), generator=torch.Generator().manual_seed(3))
    expected = published_decoded(state, codes)
    decoded = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokenizer.decode(codes), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)
