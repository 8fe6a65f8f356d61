"""Known answers, statistics and independence of the counter-based noise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from natgen import NoiseSource, philox

# Random123, kat_vectors, "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
WORD = st.integers(0, 2**32 - 1)


def python_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The paper's definition in unbounded integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def torch_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    words = philox(tuple(torch.tensor([word]) for word in counter), key)
    return tuple(int(word) for word in words)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert torch_philox(counter, key) == expected


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_matches_unbounded_integers(counter, key):
    assert torch_philox(counter, key) == python_philox(counter, key)


def test_uniforms_are_the_documented_function_of_the_counter():
    seed, sample, step, stream = 2**40 + 5, 2**33 + 7, 3, 1
    numbers = NoiseSource(seed).uniform(torch.tensor([sample]), step, stream, 6)[0]
    words = [
        word
        for block in (0, 1)
        for word in python_philox(
            (block, stream << 16 | step, sample % 2**32, sample >> 32),
            (seed % 2**32, seed >> 32),
        )
    ]
    expected = torch.tensor([((word >> 9) + 0.5) / 2**23 for word in words[:6]])
    assert torch.equal(numbers, expected)


def test_noise_does_not_depend_on_the_batch_or_the_length():
    source = NoiseSource(11)
    whole = source.uniform(torch.arange(64), 2, 0, 25)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(source.uniform(order, 2, 0, 25), whole[order])
    assert torch.equal(source.uniform(torch.arange(32, 40), 2, 0, 25), whole[32:40])
    assert torch.equal(source.uniform(torch.arange(64), 2, 0, 9), whole[:, :9])
    assert torch.equal(NoiseSource(11).uniform(torch.arange(64), 2, 0, 25), whole)


def test_every_part_of_the_key_matters():
    indices = torch.arange(4)
    base = NoiseSource(1).uniform(indices, 0, 0, 8)
    others = [
        NoiseSource(2).uniform(indices, 0, 0, 8),
        NoiseSource(1 + 2**32).uniform(indices, 0, 0, 8),
        NoiseSource(1).uniform(indices + 4, 0, 0, 8),
        NoiseSource(1).uniform(indices + 2**32, 0, 0, 8),
        NoiseSource(1).uniform(indices, 1, 0, 8),
        NoiseSource(1).uniform(indices, 0, 1, 8),
    ]
    for other in others:
        assert not (other == base).any()


def test_step_noise_is_the_two_streams():
    source, indices = NoiseSource(5), torch.arange(7)
    uniforms, gumbel = source.step(indices, 3, 10)
    assert torch.equal(uniforms, source.uniform(indices, 3, 0, 10))
    assert torch.equal(gumbel, source.gumbel(indices, 3, 1, 10))


def test_distribution():
    numbers = NoiseSource(0).uniform(torch.arange(2000), 0, 0, 100)
    assert numbers.min() > 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 160  # 99 degrees of freedom: beyond this once in about 10^4 seeds
    gumbel = NoiseSource(0).gumbel(torch.arange(2000), 0, 1, 100).double()
    assert gumbel.isfinite().all()
    assert abs(gumbel.mean() - 0.5772) < 0.01
    assert abs(gumbel.var() - torch.pi**2 / 6) < 0.03


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=f"got {seed}"):
        NoiseSource(seed)


@pytest.mark.parametrize(("step", "stream", "name"), [(-1, 0, "step"), (0, 2**16, "stream")])
def test_step_and_stream_out_of_range(step, stream, name):
    with pytest.raises(ValueError, match=name):
        NoiseSource(0).uniform(torch.arange(2), step, stream, 4)
