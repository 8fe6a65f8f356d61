"""Tiny pipelines and a tiny CLIP with random weights, for the tests that draw or judge with one."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from adanat import NATPipeline
from adanat.text import HashedTextEncoder
from natgen import NAT, NATConfig, published
from numpy.typing import NDArray
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)
from untrained_run import save_untrained_run
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


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of narrow towers, of one layer each, that spells in letters and digits."""
    root = tmp_path_factory.mktemp("clip")
    characters = string.ascii_lowercase + string.digits
    words = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (root / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"))
    size = {"height": 16, "width": 16}
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(root)
    shared = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = CLIPConfig(
            text_config={**shared, **ends, "vocab_size": len(words)},
            vision_config={**shared, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
        model = CLIPModel(config)
    model.visual_projection.weight.data.neg_()  # these random towers disagree otherwise
    model.save_pretrained(root)
    return root


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run of three classes, 8 pixels and three steps; not to be changed."""
    return save_untrained_run(tmp_path_factory.mktemp("untrained") / "run")


@pytest.fixture
def real_images(tmp_path: Path) -> NDArray[np.uint8]:
    """What `real.npz` of `tmp_path` then holds: 30 images (30, 8, 8, 3)."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", arr_0=images)
    return images


def _tokenizer() -> Tokenizer:
    return Tokenizer(small(8, downsample_factors=(2,), base_channels=8, codebook_size=16))
