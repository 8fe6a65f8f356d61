"""The plain loop and natgen's decoding are the same process."""

from __future__ import annotations

import pytest
import torch
from natbench import PRESETS, generate_plainly
from natgen import COMPONENTS, NAT, NoiseSource, StaticSchedule, generate, published
from scipy.stats import chi2_contingency


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


def outcome_counts(tokens: torch.Tensor, num_codes: int) -> torch.Tensor:
    """How often each of the V^L images came."""
    places = num_codes ** torch.arange(tokens.shape[1])
    return (tokens * places).sum(1).bincount(minlength=num_codes ** tokens.shape[1])


def p_value(first: torch.Tensor, second: torch.Tensor) -> float:
    """Chi-square test of two samples of images for one distribution; rare images are pooled."""
    table = torch.stack([first, second])
    rare = table.sum(0) < 20
    table = torch.cat([table[:, ~rare], table[:, rare].sum(1, keepdim=True)], dim=1)
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


class PairModel:
    """Codes that depend on the label and on each other; small enough to count whole images."""

    seq_len, mask_token_id = 4, 3

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.bias = torch.randn(2, 4, 3, generator=generator)
        self.coupling = torch.randn(4, 4, 4, 3, generator=generator)

    def __call__(self, tokens, condition):
        seen = torch.nn.functional.one_hot(tokens, 4).float()
        logits = self.bias[condition] + torch.einsum("blc,lcmv->bmv", seen, self.coupling)
        return logits, logits

    def null_condition(self, batch_size):
        return torch.ones(batch_size, dtype=torch.int64)


def test_same_distribution_of_whole_images() -> None:
    model, size = PairModel(), 20_000
    labels, indices = torch.zeros(size, dtype=torch.int64), torch.arange(size)
    schedule = published(3, remask_temperature=1.0, guidance_scale=1.0)
    generator = torch.Generator().manual_seed(0)
    plain = outcome_counts(generate_plainly(model, schedule, labels, generator=generator).tokens, 3)

    def same(policy: StaticSchedule) -> float:
        ours = generate(model, policy, labels, sample_indices=indices, noise=NoiseSource(seed=1))
        return p_value(plain, outcome_counts(ours.tokens, 3))

    assert same(schedule) > 0.01
    # The power of it: any parameter that is a quarter smaller is seen.
    for column, name in enumerate(COMPONENTS):
        values = schedule.values.clone()
        values[:, column] *= 0.75
        assert same(StaticSchedule(values)) < 1e-3, name
