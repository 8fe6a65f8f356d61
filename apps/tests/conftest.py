"""Tiny pipelines with random weights, for the tests that draw with one."""

import pytest
import torch
from adanat import NATPipeline
from adanat.text import HashedTextEncoder
from natgen import NAT, NATConfig, published
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from vqtok import Tokenizer, small

_NAT_SIZES = {"codebook_size": 16, "grid_size": (4, 4), "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def pipeline_by_class() -> NATPipeline:
    """Pictures of 8 pixels a side of five classes, in three steps."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = PolicyNetwork(
            PolicyNetworkConfig(
                feature_dim=16,
                grid_size=(4, 4),
                num_outputs=4,
                hidden_dim=16,
                conv_channels=8,
                mlp_dims=(16,),
            )
        )
        policy = GaussianPolicy(network, decoding_spec(published(3).values))
        nat = NAT(NATConfig(**_NAT_SIZES, num_classes=5))
        tuned = published(3, guidance_scale=1.0).values
        return NATPipeline(_tokenizer(), nat, policy, schedule=tuned)


@pytest.fixture(scope="module")
def pipeline_by_text() -> NATPipeline:
    """Pictures of 8 pixels a side by captions, without a learned policy."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder = HashedTextEncoder(6)
        nat = NAT(NATConfig(**_NAT_SIZES, context_dim=encoder.token_dim, num_context_tokens=6))
        return NATPipeline(_tokenizer(), nat, text_encoder=encoder, encoder_source=("hashed", 6))


def _tokenizer() -> Tokenizer:
    return Tokenizer(small(8, downsample_factors=(2,), base_channels=8, codebook_size=16))
