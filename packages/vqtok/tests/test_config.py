import pytest
from vqtok import TokenizerConfig, f16_vqgan, small


def test_grid_follows_from_the_factors() -> None:
    config = small(30, downsample_factors=(2, 3))
    assert config.downsampling == 6
    assert config.grid_size == (5, 5)
    assert config.level_channels == (16, 32, 64)


@pytest.mark.parametrize(("image_size", "side"), [(256, 16), (512, 32)])
def test_published_preset(image_size: int, side: int) -> None:
    config = f16_vqgan(image_size)
    assert config.grid_size == (side, side)
    assert (config.codebook_size, config.codebook_dim) == (1024, 256)


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
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    good = {"image_size": 32, "codebook_size": 16, "codebook_dim": 4}
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**{**good, **change})
