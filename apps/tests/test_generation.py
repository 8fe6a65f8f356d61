"""Pictures from sample indices: independent of batching, counted, scored once."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from adanat.generation import Cost, Generator, balanced_labels, decode_grids, from_uint8
from adanat.metrics import to_uint8
from adanat.seeding import derive_seed
from hypothesis import given
from hypothesis import strategies as st
from natgen import NAT, NATConfig, published
from torch import Tensor
from vqtok import Tokenizer, small

CLASSES = 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(small(8, downsample_factors=(2,), base_channels=8, codebook_size=16)).eval()


@pytest.fixture(scope="module")
def nat(tokenizer: Tokenizer) -> NAT:
    torch.manual_seed(1)
    config = NATConfig(
        codebook_size=16,
        grid_size=tokenizer.grid_size,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=CLASSES,
    )
    return NAT(config).eval()


def draw(nat: NAT, tokenizer: Tokenizer, batch_size: int, **options: int) -> Tensor:
    generator = Generator(nat, tokenizer, lambda i: balanced_labels(i, CLASSES), batch_size)
    batches = generator.batches(published(3), seed=5, **options)
    return torch.cat([batch.generation.tokens for batch in batches])


def test_large_pictures_are_decoded_a_few_at_a_time(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = torch.randint(0, 16, (7, *tokenizer.grid_size))
    expected = tokenizer.decode(grids)
    sizes: list[int] = []

    def decode(chunk: Tensor) -> Tensor:
        sizes.append(len(chunk))
        return expected[sum(sizes[:-1]) :][: len(chunk)]

    monkeypatch.setattr(tokenizer, "decode", decode)
    assert decode_grids(tokenizer, grids).equal(expected)
    monkeypatch.setattr("adanat.generation._PIXELS_AT_ONCE", 3 * 8 * 8)
    sizes.clear()
    assert decode_grids(tokenizer, grids).equal(expected)
    assert sizes == [3, 3, 1]


def test_batching_changes_nothing(nat: NAT, tokenizer: Tokenizer) -> None:
    whole = draw(nat, tokenizer, 10, num_samples=10)
    assert torch.equal(whole, draw(nat, tokenizer, 3, num_samples=10))
    assert torch.equal(whole[4:7], draw(nat, tokenizer, 2, num_samples=3, start=4))


def test_cost_is_counted(nat: NAT, tokenizer: Tokenizer) -> None:
    generator = Generator(nat, tokenizer, lambda i: balanced_labels(i, CLASSES), 6)
    list(generator.batches(published(3), seed=0, num_samples=12))
    # Two steps of both branches, and a first step of 3 classes and the null row for 6 images.
    assert generator.cost.images == 12
    assert generator.cost.passes_per_image == pytest.approx(2 * 2 + 4 / 6)
    assert generator.cost.images_per_second > 0


def test_pictures_of_spans_are_those_of_batches(nat: NAT, tokenizer: Tokenizer) -> None:
    generator = Generator(nat, tokenizer, lambda i: balanced_labels(i, CLASSES), 5)
    spans = [(0, 5), (10, 15), (15, 18)]
    found = list(generator.pictures(published(3), spans, seed=5))
    cost, generator.cost = generator.cost, Cost()
    for span, pictures in zip(spans, found, strict=True):
        assert torch.equal(pictures.images, generator.draw(published(3), span, seed=5).images)
        assert pictures.num_steps.tolist() == [3] * len(pictures.images)
    assert (cost.images, cost.passes) == (generator.cost.images, generator.cost.passes)
    assert cost.seconds > 0


class EndsByFeatures:
    """Reveals everything where the features of its own image say so."""

    num_steps = 3

    def __call__(self, features: Tensor, timestep: int) -> Mapping[str, Tensor]:
        found = dict(published(3)(features, timestep))
        fraction = (20 * features[:, 0, 0]).frac().abs()  # as good as random
        found["mask_ratio"] = found["mask_ratio"] * (fraction > 0.5)
        return found


def test_a_stream_has_the_same_pictures_in_fewer_steps(nat: NAT, tokenizer: Tokenizer) -> None:
    generator = Generator(nat, tokenizer, lambda i: balanced_labels(i, CLASSES), 5)
    spans = [(0, 5), (10, 15), (15, 18)]  # one process's share may have gaps
    streamed = list(generator.stream(EndsByFeatures(), spans, seed=5))
    cost, generator.cost = generator.cost, Cost()
    for span, pictures in zip(spans, streamed, strict=True):
        assert torch.equal(pictures.images, generator.draw(EndsByFeatures(), span, seed=5).images)
    steps = torch.cat([pictures.num_steps for pictures in streamed])
    assert len(steps.unique()) > 1
    assert steps.min() >= 1
    assert steps.max() <= 3
    assert cost.images == 18 - 5
    assert cost.passes_per_image < generator.cost.passes_per_image


def test_a_stream_of_a_schedule_takes_all_its_steps(nat: NAT, tokenizer: Tokenizer) -> None:
    generator = Generator(nat, tokenizer, lambda i: balanced_labels(i, CLASSES), 6)
    (pictures,) = generator.stream(published(3), [(0, 12)], seed=0)
    assert pictures.num_steps.tolist() == [3] * 12
    # The first step of three classes and the null row is kept for the second half.
    assert generator.cost.passes_per_image == pytest.approx(2 * 2 + 4 / 12)


def test_cost_of_nothing_is_undefined() -> None:
    assert np.isnan(Cost().images_per_second)
    assert np.isnan(Cost().passes_per_image)


def test_uint8_images_survive_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)


@given(st.integers(0, 2**31), st.integers(0, 100))
def test_seeds_of_different_purposes_differ(seed: int, index: int) -> None:
    found = {derive_seed(seed, purpose, index) for purpose in ("test", "policy rollouts")}
    found.add(derive_seed(seed, "test", index + 1))
    assert len(found) == 3
    assert all(0 <= value < 2**62 for value in found)
