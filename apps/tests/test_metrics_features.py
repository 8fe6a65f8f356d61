"""Features of many images: batching, the cache, bad input."""

import numpy as np
import pytest
import torch
from adanat.metrics import extract_features, extract_features_cached, to_uint8
from torch import nn


class TinyFeatures:
    """A random projection that counts its calls."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3 * 6 * 6, 5, generator=generator)
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        assert images.dtype == torch.float32
        return images.flatten(1) @ self.weight


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (23, 3, 6, 6), dtype=torch.uint8, generator=generator)


def test_batches_do_not_matter(images):
    pooled = TinyFeatures()
    whole = extract_features(images, pooled, batch_size=64)
    parts = extract_features(images, pooled, batch_size=5)
    assert whole.shape == (23, 5)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-5)


def test_no_gradient_is_recorded(images):
    layer = nn.Linear(3 * 6 * 6, 5)
    extract_features(images, lambda batch: layer(batch.flatten(1)))
    assert layer.weight.grad is None


def test_rounding_to_uint8_is_that_of_a_saved_image():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 255), levels)
    assert to_uint8(torch.tensor([-0.2, 1.7, 0.5 / 255 + 1e-4])).tolist() == [0, 255, 1]


def test_the_cache_answers_for_equal_content_alone(images, tmp_path):
    pooled = TinyFeatures()

    def ask(batch, name="tiny"):
        return extract_features_cached(batch, pooled, extractor_name=name, cache_folder=tmp_path)

    first = ask(images)
    np.testing.assert_array_equal(ask(images.clone()), first)
    assert pooled.calls == 1
    ask(images, name="other")
    changed = images.clone()
    changed[3, 0, 0, 0] ^= 1
    ask(changed)
    assert pooled.calls == 3
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_damaged_cache_file_is_computed_again(images, tmp_path, suffix):
    pooled = TinyFeatures()
    first = extract_features_cached(images, pooled, extractor_name="t", cache_folder=tmp_path)
    (damaged,) = tmp_path.glob(f"*.{suffix}")
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"damaged")
    again = extract_features_cached(images, pooled, extractor_name="t", cache_folder=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert pooled.calls == 2


def test_bad_images_and_features_are_refused(images):
    pooled = TinyFeatures()
    with pytest.raises(ValueError, match=r"torch\.float32"):
        extract_features(images.float(), pooled)
    with pytest.raises(ValueError, match=r"\(0, 3, 6, 6\)"):
        extract_features(images[:0], pooled)
    with pytest.raises(ValueError, match="batch_size is 0"):
        extract_features(images, pooled, batch_size=0)
    with pytest.raises(ValueError, match=r"\(23, 3, 6, 6\)"):
        extract_features(images, lambda batch: batch)
    with pytest.raises(ValueError, match="not finite"):
        extract_features(images, lambda batch: batch.flatten(1) * torch.inf)
