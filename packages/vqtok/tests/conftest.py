import pytest
import torch
from vqtok import Tokenizer, TokenizerConfig


@pytest.fixture
def config() -> TokenizerConfig:
    return TokenizerConfig(
        image_size=12,
        base_channels=8,
        channel_multipliers=(1, 2, 2),
        downsample_factors=(2, 3),
        codebook_size=16,
        codebook_dim=6,
        norm_groups=4,
        dead_code_threshold=0.5,
    )


@pytest.fixture
def tokenizer(config: TokenizerConfig) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(config)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
