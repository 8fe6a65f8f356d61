import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqtok import Tokenizer, TokenizerConfig, TokenizerTrainer, TokenizerTrainingConfig
from vqtok.quantizer import Quantizer
from vqtok.scalar_quantizers import FiniteScalarQuantizer, LookupFreeQuantizer

LEVELS = (5, 4, 3)


def make_lfq() -> LookupFreeQuantizer:
    return LookupFreeQuantizer(3, commitment_weight=0.25, entropy_weight=0.1)


def make_latent(seed: int = 0, batch: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, 3, 2, 5, generator=generator)


def rounded(channel: torch.Tensor, levels: int) -> torch.Tensor:
    """One channel's level, counted from 0 (arXiv 2309.15505, app. A)."""
    half = (levels - 1) * 1.001 / 2
    offset = 0.5 if levels % 2 == 0 else 0.0
    bounded = torch.tanh(channel + math.atanh(offset / half)) * half - offset
    return bounded.round() + levels // 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_fsq_rounds_each_channel(seed: int) -> None:
    quantizer, latent = FiniteScalarQuantizer(LEVELS), make_latent(seed)
    vectors, token_grid, loss = quantizer(latent)
    level = [rounded(latent[:, i], count) for i, count in enumerate(LEVELS)]
    assert torch.equal(token_grid, (level[0] + 5 * level[1] + 20 * level[2]).long())
    for i, count in enumerate(LEVELS):
        torch.testing.assert_close(vectors[:, i], (level[i] - count // 2) / (count // 2))
    assert loss == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), training=st.booleans())
def test_lfq_takes_signs(seed: int, training: bool) -> None:
    quantizer, latent = make_lfq().train(training), make_latent(seed)
    vectors, token_grid, _ = quantizer(latent)
    torch.testing.assert_close(vectors, latent.sign())
    bits = (latent > 0).long()
    assert torch.equal(token_grid, 4 * bits[:, 0] + 2 * bits[:, 1] + bits[:, 2])


def test_lfq_loss() -> None:
    """Commitment and entropies by the definition (arXiv 2310.05737, eq. 4 to 5), code by code."""
    quantizer, latent = make_lfq().train(), 0.01 * make_latent()
    flat = latent.permute(0, 2, 3, 1).flatten(0, 2)
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    # The squared distance to a code is, but for a constant, minus twice the inner product.
    probability = (100 * 2 * flat @ codes.T).softmax(1)
    each = torch.special.entr(probability).sum(1).mean()
    together = torch.special.entr(probability.mean(0)).sum()
    commitment = (flat - flat.sign()).square().mean()
    expected = 0.25 * commitment + 0.1 * (each - together)
    torch.testing.assert_close(quantizer(latent).commitment_loss, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("quantizer", [FiniteScalarQuantizer(LEVELS), make_lfq()])
@pytest.mark.parametrize("training", [True, False])
def test_codes_come_back(quantizer: Quantizer, training: bool) -> None:
    quantizer, latent = quantizer.train(training), make_latent()
    vectors, token_grid, _ = quantizer(latent)
    assert token_grid.dtype == torch.int64
    torch.testing.assert_close(quantizer.lookup(token_grid), vectors)
    assert torch.equal(quantizer.nearest(latent), token_grid)


@pytest.mark.parametrize("quantizer", [FiniteScalarQuantizer(LEVELS), make_lfq()])
def test_gradients_reach_the_latent(quantizer: Quantizer) -> None:
    latent = make_latent().requires_grad_()
    vectors, _, loss = quantizer.train()(latent)
    (vectors.sum() + loss).backward()
    assert latent.grad is not None
    assert (latent.grad != 0).all()


@pytest.mark.parametrize("quantizer", [FiniteScalarQuantizer((1001, 3, 3)), make_lfq()])
def test_quantizers_stay_float32_under_autocast(quantizer: Quantizer) -> None:
    # Levels a thousandth apart, which bfloat16 cannot tell apart.
    latent = make_latent()
    expected = quantizer.eval()(latent)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latent)
    assert torch.equal(found.token_grid, expected.token_grid)
    assert torch.equal(found.vectors, expected.vectors)


@pytest.fixture(params=["fsq", "lfq"])
def config(request: pytest.FixtureRequest, config: TokenizerConfig) -> TokenizerConfig:
    if request.param == "fsq":
        return replace(config, quantizer="fsq", fsq_levels=LEVELS, codebook_size=60, codebook_dim=3)
    return replace(config, quantizer="lfq", codebook_size=16, codebook_dim=4)


def test_tokenizers_train_and_come_back(
    config: TokenizerConfig, images: torch.Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(config)
    before = copy.deepcopy(tokenizer.encoder)
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig(learning_rate=1e-3))
    history = [trainer.step(images) for _ in range(20)]
    assert history[-1]["reconstruction"] < 0.8 * history[0]["reconstruction"]
    assert not torch.equal(before.conv_in.weight, tokenizer.encoder.conv_in.weight)

    trainer.ema_tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.config == config
    token_grid = loaded.encode(images)
    assert torch.equal(token_grid, trainer.ema_tokenizer.encode(images))
    assert 0 <= token_grid.min() <= token_grid.max() < config.codebook_size
    assert torch.equal(loaded.decode(token_grid), trainer.ema_tokenizer.decode(token_grid))


def test_every_code_can_be_decoded(config: TokenizerConfig) -> None:
    quantizer = Tokenizer(config).quantizer
    token_grid = torch.arange(config.codebook_size).view(1, 1, -1)
    codes = quantizer.lookup(token_grid)
    assert len(codes[0, :, 0].T.unique(dim=0)) == config.codebook_size


def test_weights_in_bfloat16(config: TokenizerConfig, images: torch.Tensor) -> None:
    tokenizer = Tokenizer(config).eval()
    token_grid = tokenizer.encode(images)
    expected = tokenizer.decode(token_grid)
    decoded = tokenizer.to(torch.bfloat16).decode(token_grid)
    assert decoded.dtype == torch.bfloat16
    torch.testing.assert_close(decoded.float(), expected, atol=0.05, rtol=0)
    assert tokenizer(images).reconstruction.dtype == torch.bfloat16
