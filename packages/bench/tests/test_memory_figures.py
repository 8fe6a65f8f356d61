"""The memory that docs/performance.md states, counted on the meta device."""

from __future__ import annotations

import natgen
import pytest
import torch
from natbench import PRESETS, peak_memory
from natgen import NAT, DecodingState, NoiseSource, StaticDecoder, published
from natgen.static_decoder import _Inputs
from policyrl import PolicyNetwork, PolicyNetworkConfig
from torch import Tensor
from vqtok import Tokenizer

META, BF16 = torch.device("meta"), torch.bfloat16
FULL = PRESETS["full"]()


@pytest.fixture
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's kernels, which keep no scores; the meta device would show them."""
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention", lambda q, k, v: torch.empty_like(q)
    )


@pytest.mark.usefixtures("fused_attention")
def test_a_guided_step_of_256_images() -> None:
    with META:
        nat = NAT(FULL.nat).eval().to(BF16)
        tokens = torch.zeros(256, nat.seq_len, dtype=torch.int64)
        keys = torch.zeros(256, dtype=torch.int64)
    state = DecodingState(tokens, tokens, keys, keys, timestep=1, num_rows=0)
    with torch.no_grad():
        peak = peak_memory(lambda: natgen.step(nat, published(8), state, NoiseSource(0)), META)
    assert peak == pytest.approx(4.65e9, rel=0.01)
    assert sum(weight.nbytes for weight in nat.parameters()) == pytest.approx(0.39e9, rel=0.01)


@pytest.mark.usefixtures("fused_attention")
def test_a_graphs_loop_needs_no_more_for_more_steps() -> None:
    with META:
        nat = NAT(FULL.nat).eval().to(BF16)
        keys = torch.zeros(64, dtype=torch.int64)
        logits = torch.zeros(64, nat.seq_len, FULL.nat.codebook_size, dtype=BF16)
        features = torch.zeros(64, nat.seq_len, FULL.nat.embed_dim, dtype=BF16)
    inputs = _Inputs(keys, keys, features, logits, logits[:1])

    def peak(num_steps: int) -> int:
        decoder = StaticDecoder(nat, published(num_steps), batch_size=64, noise=NoiseSource(0))
        with torch.no_grad():
            return peak_memory(lambda: decoder._loop(inputs), META)

    assert peak(4) == peak(2)  # the second pass of the two does not see the logits of the first


def test_pictures_of_64_token_grids() -> None:
    decoder = Tokenizer(FULL.tokenizer).eval().to(META, BF16).decoder
    latent = torch.zeros(64, 256, 16, 16, dtype=BF16, device=META)
    with torch.no_grad():
        assert peak_memory(lambda: decoder(latent), META) == pytest.approx(5.6e9, rel=0.01)


@pytest.mark.parametrize(("chunk_size", "expected"), [(1024, 6.7e9), (256, 1.68e9)])
def test_a_chunk_of_a_policys_update(chunk_size: int, expected: float) -> None:
    with META:
        policy, critic = (
            PolicyNetwork(
                PolicyNetworkConfig(feature_dim=768, grid_size=(16, 16), num_outputs=outputs)
            )
            for outputs in (4, 1)
        )
    weights = [*policy.parameters(), *critic.parameters()]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)

    def update() -> None:
        observation: dict[str, Tensor] = {
            "features": torch.zeros(chunk_size, 256, 768, dtype=BF16, device=META),
            "timestep": torch.zeros(chunk_size, dtype=torch.int64, device=META),
        }
        torch.autograd.backward(policy(observation).sum() + critic(observation).sum())

    assert peak_memory(update, META) == pytest.approx(expected, rel=0.01)
    assert 16 * sum(map(torch.numel, weights)) == pytest.approx(0.38e9, rel=0.01)
