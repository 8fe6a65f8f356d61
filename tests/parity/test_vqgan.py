"""The tokenizer against the recorded numbers of the published VQGAN."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from vqtok import Tokenizer, TokenizerConfig, import_vqgan


class Reference(NamedTuple):
    tokenizer: Tokenizer
    tensors: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reference(reference_dir: Path) -> Reference:
    with safe_open(reference_dir / "vqgan.safetensors", "pt") as file:
        sizes = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    encoder_sizes = sizes["ddconfig"]
    config = TokenizerConfig(
        image_size=encoder_sizes["resolution"],
        base_channels=encoder_sizes["ch"],
        channel_multipliers=encoder_sizes["ch_mult"],
        downsample_factors=(2,) * (len(encoder_sizes["ch_mult"]) - 1),
        num_res_blocks=encoder_sizes["num_res_blocks"],
        codebook_size=sizes["n_embed"],
        codebook_dim=sizes["embed_dim"],
        in_channels=encoder_sizes["in_channels"],
    )
    state = {key[6:]: value for key, value in tensors.items() if key.startswith("state.")}
    return Reference(import_vqgan(state, config), tensors)


def assert_matches(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_latents(reference: Reference) -> None:
    latent = reference.tokenizer.latent(reference.tensors["in.image"])
    assert_matches(latent, reference.tensors["out.latent"])


def test_tokens(reference: Reference) -> None:
    token_grid = reference.tokenizer.encode(reference.tensors["in.image"])
    torch.testing.assert_close(token_grid, reference.tensors["out.codes"], rtol=0, atol=0)


def test_code_vectors(reference: Reference) -> None:
    vectors = reference.tokenizer.quantizer.lookup(reference.tensors["out.codes"])
    assert_matches(vectors, reference.tensors["out.quantized"])


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_reconstruction(reference: Reference, training: bool) -> None:
    # Training updates the codebook only after its codes were used.
    tokenizer = Tokenizer(reference.tokenizer.config)
    tokenizer.load_state_dict(reference.tokenizer.state_dict())
    output = tokenizer.train(training)(reference.tensors["in.image"])
    assert_matches(output.reconstruction, reference.tensors["out.recon"])
    assert torch.equal(output.token_grid, reference.tensors["out.codes"])


@torch.no_grad()
def test_decoding(reference: Reference) -> None:
    codes, expected = reference.tensors["in.codes"], reference.tensors["out.decoded"]
    tokenizer = reference.tokenizer
    assert_matches(tokenizer.decoder(tokenizer.quantizer.lookup(codes)), expected)
    assert_matches(tokenizer.decode(codes), expected.clamp(0, 1))
