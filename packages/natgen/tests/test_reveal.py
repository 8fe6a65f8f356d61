"""Decoding that starts from given tokens, or reveals in a given order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from natgen import (
    DecodingEnvironment,
    NoiseSource,
    StaticSchedule,
    generate,
    halton_order,
    init_state,
    published,
)
from scipy.stats import qmc

LABELS = torch.tensor([0, 1, 4, 1, 5])
INDICES = torch.arange(5) + 100


def run(model, schedule, **options):
    return generate(
        model, schedule, LABELS, sample_indices=INDICES, noise=NoiseSource(3), **options
    )


def partly_masked(model):
    """Row 0 all masks, row 1 none, the others mixed."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.mask_token_id, (5, model.seq_len), generator=generator)
    masked = torch.rand(5, model.seq_len, generator=generator) < 0.6
    masked[0], masked[1] = True, False
    return tokens.masked_fill(masked, model.mask_token_id)


@pytest.mark.parametrize("grid_size", [(16, 16), (3, 5), (7, 2), (1, 1)])
def test_halton_order_visits_as_scipys_sequence(grid_size):
    height, width = grid_size
    points = qmc.Halton(d=2, scramble=False).random(20_000)[1:]  # point 0 is the origin
    cells = (points * [height, width] + 1e-9).astype(int)  # the border belongs to the next cell
    expected = list(dict.fromkeys((cells[:, 0] * width + cells[:, 1]).tolist()))
    assert halton_order(grid_size).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_halton_order_is_a_permutation(height, width):
    order = halton_order((height, width))
    assert sorted(order.tolist()) == list(range(height * width))


def test_the_first_tokens_of_halton_order_are_spread():
    rows, columns = halton_order((16, 16))[:16] // 16, halton_order((16, 16))[:16] % 16
    quadrants = torch.bincount(rows // 8 * 2 + columns // 8, minlength=4)
    assert quadrants.min() >= 3


def test_tokens_are_revealed_in_the_given_order(class_model):
    schedule = published(4)
    order = halton_order(class_model.grid_size)
    generation = run(class_model, schedule, reveal_order=order, record=True)
    for t, record in enumerate(generation.steps[:-1]):
        count = int(class_model.seq_len * schedule.values[t, 0])
        shown = order[: class_model.seq_len - count]
        for row in record.tokens:
            assert (row != class_model.mask_token_id).nonzero().flatten().tolist() == sorted(shown)
    assert not torch.equal(generation.tokens, run(class_model, schedule).tokens)


def test_an_order_for_each_sample(class_model):
    order = halton_order(class_model.grid_size)
    rolled = torch.stack([order.roll(shift) for shift in range(5)])
    together = run(class_model, published(3), reveal_order=rolled).tokens
    for i in range(5):
        alone = generate(
            class_model,
            published(3),
            LABELS[i : i + 1],
            sample_indices=INDICES[i : i + 1],
            noise=NoiseSource(3),
            reveal_order=order.roll(i),
        )
        assert torch.equal(alone.tokens[0], together[i])


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (torch.arange(11), r"\(12,\) or \(5, 12\), got \(11,\)"),
        (torch.arange(12).expand(2, 12), r"got \(2, 12\)"),
        (torch.arange(12) + 1, r"each position in \[0, 11\] once"),
        (torch.zeros(12, dtype=torch.int64), "once"),
    ],
)
def test_bad_orders(class_model, order, message):
    with pytest.raises(ValueError, match=message):
        run(class_model, published(2), reveal_order=order)


@pytest.mark.parametrize("ordered", [False, True])
def test_given_tokens_stay_and_ratios_count_the_others(class_model, ordered):
    schedule = published(4)
    initial = partly_masked(class_model)
    mask = class_model.mask_token_id
    order = halton_order(class_model.grid_size) if ordered else None
    generation = run(class_model, schedule, initial_tokens=initial, reveal_order=order, record=True)
    visible = initial != mask
    started = (~visible).sum(1)
    for t, record in enumerate(generation.steps):
        assert torch.equal(record.tokens[visible], initial[visible])
        assert torch.equal(record.drawn[visible], initial[visible])
        expected = (started * schedule.values[t, 0]).long() * (t < 3)
        assert torch.equal((record.tokens == mask).sum(1), expected)
    assert torch.equal(generation.tokens[1], initial[1])
    assert (generation.tokens < mask).all()


def test_masks_everywhere_equal_no_initial_tokens(class_model):
    masks = torch.full((5, *class_model.grid_size), class_model.mask_token_id)
    expected = run(class_model, published(4), record=True)
    generation = run(class_model, published(4), initial_tokens=masks, record=True)
    for one, other in zip(generation.steps, expected.steps, strict=True):
        assert torch.equal(one.tokens, other.tokens)


def test_given_tokens_are_seen(class_model):
    """The first step already reads what was given: equal samples but for it come out otherwise."""
    initial = torch.full((5, 12), class_model.mask_token_id)
    initial[:, :6] = torch.tensor([0, 1, 2, 3, 4])[:, None]
    state = init_state(class_model, LABELS, INDICES, initial_tokens=initial)
    assert not state.is_blank
    one_step = StaticSchedule(torch.tensor([[0.0, 0.0, 0.0, 0.0]]))  # the most likely codes
    drawn = generate(
        class_model,
        one_step,
        torch.ones(5, dtype=torch.int64),
        sample_indices=INDICES,
        noise=NoiseSource(3),
        initial_tokens=initial,
    ).tokens
    with torch.no_grad():
        logits = class_model(initial, torch.ones(5, dtype=torch.int64)).logits
    assert torch.equal(drawn[:, 6:], logits.argmax(-1)[:, 6:])
    assert len({tuple(row) for row in drawn[:, 6:].tolist()}) > 1


def test_both_guidance_branches_see_the_given_tokens(class_model, monkeypatch):
    initial = partly_masked(class_model)
    deferred = run(class_model, published(3), initial_tokens=initial).tokens
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: False)
    assert torch.equal(run(class_model, published(3), initial_tokens=initial).tokens, deferred)
    off = run(class_model, published(3, guidance_scale=0.0), initial_tokens=initial).tokens
    assert not torch.equal(off, deferred)


def test_patches_with_given_tokens(patch_model):
    initial = partly_masked(patch_model)
    tokens = run(patch_model, published(3), initial_tokens=initial).tokens
    visible = initial != patch_model.mask_token_id
    assert torch.equal(tokens[visible], initial[visible])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens[:, :-1], r"12 tokens for each of 5.*got \(5, 11\)"),
        (lambda tokens: tokens[:2], r"got \(2, 12\)"),
        (lambda tokens: tokens.float(), "float32"),
        (lambda tokens: tokens[0], r"got \(12,\)"),
        (lambda tokens: tokens + 1, r"initial token 17 is out of range.*\[0, 15\].*16 is the mask"),
        (lambda tokens: tokens - 17, "initial token -17"),
    ],
)
def test_bad_initial_tokens(class_model, change, message):
    with pytest.raises(ValueError, match=message):
        run(class_model, published(2), initial_tokens=change(partly_masked(class_model)))


def test_episodes_from_given_tokens_equal_generate(class_model):
    initial, schedule = partly_masked(class_model), published(3)
    environment = DecodingEnvironment(
        class_model,
        num_steps=3,
        conditions=lambda episodes: LABELS[episodes - 100],
        noise=NoiseSource(3),
        initial_tokens=lambda episodes: initial[episodes - 100],
    )
    observation = environment.reset(INDICES)
    for t in range(3):
        observation, _, _ = environment.step(schedule(observation["features"], t))
    expected = run(class_model, schedule, initial_tokens=initial).tokens
    assert torch.equal(environment.outcome()["tokens"].flatten(1), expected)
