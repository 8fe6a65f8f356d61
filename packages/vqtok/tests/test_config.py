from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from vqtok import Tokenizer, TokenizerConfig, f16_vqgan, llamagen_f16, small


def test_grid_follows_from_the_factors() -> None:
    config = small(30, downsample_factors=(2, 3))
    assert config.downsampling == 6
    assert config.grid_size == (5, 5)
    assert config.level_channels == (16, 32, 64)


def block_parameters(inputs: int, outputs: int) -> int:
    """Two norms, two 3x3 convolutions without bias and, for new channels, a 1x1 shortcut."""
    shortcut = outputs * outputs if inputs != outputs else 0
    return 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs + shortcut


def published_parameters() -> int:
    """Encoder and decoder of the published f16 VQGAN, counted layer by layer."""
    widths = (128, 128, 256, 256, 512)
    middle = 2 * block_parameters(512, 512)
    encoder = 9 * 3 * 128 + middle + 2 * 512 + (512 * 256 + 256)
    decoder = (9 * 256 * 512 + 512) + middle + 2 * 128 + (9 * 128 * 3 + 3)
    for previous, current in pairwise((128, *widths)):
        encoder += block_parameters(previous, current) + block_parameters(current, current)
    for previous, current in pairwise((512, *reversed(widths))):
        decoder += block_parameters(previous, current) + block_parameters(current, current)
    decoder += sum(9 * width * width + width for width in widths[1:])  # after each upsampling
    return encoder + decoder


@pytest.mark.parametrize(("image_size", "side"), [(256, 16), (512, 32)])
@pytest.mark.parametrize("preset", [f16_vqgan, llamagen_f16])
def test_published_presets(
    preset: Callable[[int], TokenizerConfig], image_size: int, side: int
) -> None:
    config = preset(image_size)
    with torch.device("meta"):
        tokenizer = Tokenizer(config)
        latent = tokenizer.latent(torch.zeros(1, 3, image_size, image_size))
    assert tokenizer.grid_size == (side, side)
    assert latent.shape == (1, config.codebook_dim, side, side)
    assert tokenizer.quantizer.codebook.shape == (config.codebook_size, config.codebook_dim)
    found = sum(value.numel() for value in tokenizer.parameters())
    if preset is f16_vqgan:
        assert (config.codebook_size, config.codebook_dim) == (1024, 256)
        assert found == published_parameters() == 54_253_443
    else:
        assert (config.codebook_size, config.codebook_dim) == (16384, 8)
        # "72M", arXiv 2406.06525, table 1; the codes are buffers here.
        assert round((found + tokenizer.quantizer.codebook.numel()) / 1e6) == 72


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 31}, "image_size must be divisible by 2.*31"),
        ({"codebook_size": 0}, "codebook_size must be at least 1, got 0"),
        ({"channel_multipliers": ()}, r"channel_multipliers.*\(\)"),
        ({"downsample_factors": (2, 2)}, "one entry fewer"),
        ({"downsample_factors": (1,)}, "at least 2"),
        ({"norm_groups": 5}, "divisible by norm_groups, got 5"),
        ({"commitment_weight": -1.0}, "commitment_weight.*-1"),
        ({"codebook_decay": 1.0}, "codebook_decay.*1.0"),
        ({"dead_code_threshold": -2.0}, "dead_code_threshold.*-2"),
        ({"entropy_weight": -1.0}, "entropy_weight.*-1"),
        ({"quantizer": "rvq"}, "quantizer must be one of.*'rvq'"),
        ({"quantizer": "fsq"}, r"fsq_levels are needed.*\(\) for 'fsq'"),
        ({"fsq_levels": (4, 4)}, r"fsq_levels are needed.*\(4, 4\) for 'vq'"),
        ({"quantizer": "fsq", "fsq_levels": (8, 2)}, r"at least 3 each, got \(8, 2\)"),
        ({"quantizer": "fsq", "fsq_levels": (5, 4)}, "20 codes of length 2, got codebook_size 16"),
        ({"quantizer": "lfq", "codebook_dim": 5}, "32 codes of length 5, got codebook_size 16"),
        ({"quantizer": "lfq", "normalize_codes": True}, "normalize_codes is for.*'lfq'"),
        ({"architecture": "vit"}, "architecture must be one of.*'vit'"),
        ({"latent_channels": 8}, "latent_channels is for.*8 for 'vqgan'"),
        ({"architecture": "llamagen", "latent_channels": 0}, "latent_channels.*at least 1, got 0"),
        ({"architecture": "llamagen", "downsample_factors": (4,)}, r"halves only, got.*\(4,\)"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    good = {"image_size": 32, "codebook_size": 16, "codebook_dim": 4}
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**{**good, **change})
