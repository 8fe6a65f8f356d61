"""The plain loop and natgen's decoding are the same process."""

from __future__ import annotations

import pytest
import torch
from natbench import PRESETS, generate_plainly
from natgen import NAT, NoiseSource, StaticSchedule, generate, published


@pytest.fixture(scope="module")
def nat() -> NAT:
    torch.manual_seed(1)
    model = NAT(PRESETS["tiny"]().nat)
    for parameter in model.parameters():  # far from uniform predictions
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


class CountedModel:
    """Counts the rows that pass through a NAT."""

    def __init__(self, model: NAT) -> None:
        self.model = model
        self.rows = 0
        self.seq_len = model.seq_len
        self.mask_token_id = model.mask_token_id
        self.null_condition = model.null_condition

    def __call__(self, tokens, condition):
        self.rows += len(tokens)
        return self.model(tokens, condition)


@pytest.mark.parametrize("num_steps", [1, 4, 8])
def test_same_tokens_where_noise_has_no_say(nat: NAT, num_steps: int) -> None:
    values = published(num_steps, guidance_scale=2.0).values.clone()
    values[:, 1] = 0.0  # no Gumbel noise
    values[:, 2] = 1e-4  # draws become the arg max
    schedule = StaticSchedule(values)
    labels = torch.arange(6) % 10
    plain = generate_plainly(nat, schedule, labels, generator=torch.Generator().manual_seed(0))
    ours = generate(
        nat, schedule, labels, sample_indices=torch.arange(6), noise=NoiseSource(seed=5)
    )
    assert torch.equal(plain.tokens, ours.tokens)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_plain_loop_runs_two_passes_a_step_and_one(nat: NAT, num_steps: int) -> None:
    model = CountedModel(nat)
    labels = torch.arange(4)
    result = generate_plainly(
        model, published(num_steps), labels, generator=torch.Generator().manual_seed(0)
    )
    assert result.num_passes == 2 * num_steps + 1
    assert model.rows == len(labels) * result.num_passes
    assert result.tokens.min() >= 0
    assert result.tokens.max() < nat.mask_token_id
