"""Exact oracles and properties of one step's arithmetic."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from natgen import confidence, draw, guide, remask


def random_logits(batch=4, length=6, codes=9, seed=0):
    return torch.randn(batch, length, codes, generator=torch.Generator().manual_seed(seed))


def test_guidance():
    cond, uncond = random_logits(seed=1), random_logits(seed=2)
    scale = torch.tensor([0.0, 0.5, 1.0, 7.0])
    expected = cond + scale[:, None, None] * (cond - uncond)
    torch.testing.assert_close(guide(cond, uncond, scale), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(guide(cond, uncond, scale)[0], cond[0])
    assert guide(cond.bfloat16(), uncond.bfloat16(), scale).dtype == torch.float32


def test_draw_inverts_the_distribution_function():
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    uniforms = torch.tensor([[0.01, 0.19, 0.21, 0.69, 0.71, 0.99]])
    drawn = draw(logits.expand(1, 6, 3), torch.ones(1), uniforms)
    assert drawn.tolist() == [[0, 0, 1, 1, 2, 2]]


def test_draw_is_distributed_as_the_tempered_softmax():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -torch.inf])
    temperatures = torch.tensor([0.5, 1.0, 3.0])
    count = 20_000
    uniforms = (torch.arange(count) + 0.5) / count  # equally spaced: the counts are exact
    drawn = draw(logits.expand(3, count, 5), temperatures, uniforms.expand(3, -1))
    for row, temperature in zip(drawn, temperatures, strict=True):
        frequency = torch.bincount(row, minlength=5) / count
        torch.testing.assert_close(
            frequency, torch.softmax(logits / temperature, 0), atol=2 / count, rtol=0
        )


def test_draw_at_the_ends_of_the_interval():
    logits = torch.full((1, 2, 6), -torch.inf)
    logits[..., 1:4] = 0.0
    ends = torch.tensor([[2.0**-24, 1 - 2.0**-24]])
    assert draw(logits, torch.ones(1), ends).tolist() == [[1, 3]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2000), st.floats(0, 20))
def test_the_largest_uniform_never_leaves_the_codebook(seed, codes, temperature):
    logits = random_logits(1, 8, codes, seed) * 5
    uniforms = torch.full((1, 8), 1 - 2.0**-24)
    drawn = draw(logits, torch.tensor([temperature]), uniforms)
    assert drawn.min() >= 0
    assert drawn.max() < codes


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 97, 1000, 1024, 2048, 16411]))
def test_a_drawn_code_s_share_of_the_interval_holds_the_uniform(seed, codes):
    generator = torch.Generator().manual_seed(seed)
    logits = random_logits(2, 8, codes, seed) * 3
    logits[..., 1:][torch.rand(2, 8, codes - 1, generator=generator) < 0.5] = -torch.inf
    uniforms, temperature = torch.rand(2, 8, generator=generator), torch.tensor([0.5, 2.0])
    uniforms = uniforms.clamp(2**-24, 1 - 2**-24)
    drawn = draw(logits, temperature, uniforms)[..., None]
    shares = (logits.double() / temperature[:, None, None]).softmax(-1)
    upper, share = shares.cumsum(-1).gather(-1, drawn), shares.gather(-1, drawn)
    assert share.gt(0).all()
    assert (uniforms[..., None] < upper + 1e-6).all()
    assert (uniforms[..., None] > upper - share - 1e-6).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(wrong):
    logits = random_logits()
    logits[1, 2, 3] = wrong
    with pytest.raises(RuntimeError, match="logits are NaN or infinite"):
        draw(logits, torch.ones(4), torch.full((4, 6), 0.5))


def test_zero_temperature_takes_the_most_likely_code():
    logits = random_logits()
    uniforms = torch.rand(4, 6, generator=torch.Generator().manual_seed(3)).clamp(0.01, 0.99)
    assert torch.equal(draw(logits, torch.zeros(4), uniforms), logits.argmax(-1))


def test_confidence():
    logits = random_logits()
    drawn = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(4))
    masked = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    gumbel = torch.randn(4, 6, generator=torch.Generator().manual_seed(6))
    temperature = torch.tensor([0.0, 1.0, 2.0, 4.5])
    result = confidence(logits, drawn, masked, temperature, gumbel)
    log_prob = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
    expected = log_prob + temperature[:, None] * gumbel
    torch.testing.assert_close(result[masked], expected[masked], rtol=1e-6, atol=1e-6)
    assert (result[~masked] == torch.inf).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_remasking_counts_and_order(seed, length, ratio, masked_share):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(9, (1, length), generator=generator)
    masked = torch.rand(1, length, generator=generator) < masked_share
    certainty = torch.randn(1, length, generator=generator).masked_fill(~masked, torch.inf)
    after = remask(drawn, certainty, torch.tensor([ratio]), 9) == 9
    wanted = min(int((torch.tensor(ratio) * length).floor()), length - 1)
    assert after.sum() == min(wanted, int(masked.sum()))
    assert not (after & ~masked).any()
    if after.any() and (masked & ~after).any():
        assert certainty[after].max() < certainty[masked & ~after].min()
