"""What policy training adds around PPO: prices, chosen numbers, smoothed decoding, conditions."""

from dataclasses import replace

import pytest
import torch
from adanat.conditions import ClassConditions
from adanat.generation import Generator
from adanat.recipes import get_recipe
from adanat.stages.train_policy import chosen_means
from adanat.step_price import StepPrice
from natgen import NAT, DecodingEnvironment, NATConfig, NoiseSource, published
from policyrl import (
    GaussianPolicy,
    PolicyNetwork,
    PolicyNetworkConfig,
    PolicySession,
    collect,
    decoding_spec,
)
from vqtok import Tokenizer, small

EPISODES, STEPS = 6, 3


@pytest.fixture(scope="module")
def nat() -> NAT:
    torch.manual_seed(0)
    config = NATConfig(
        codebook_size=64, grid_size=(2, 2), embed_dim=16, depth=2, num_heads=2, num_classes=3
    )
    return NAT(config).eval()


def policy_of(smoothing: float) -> GaussianPolicy:
    torch.manual_seed(1)
    config = PolicyNetworkConfig(
        feature_dim=16, grid_size=(2, 2), num_outputs=4, hidden_dim=8, conv_channels=4,
        mlp_dims=(8, 8),
    )  # fmt: skip
    spec = decoding_spec(published(STEPS).values, smoothing=smoothing)
    policy = GaussianPolicy(PolicyNetwork(config), spec).eval()
    with torch.no_grad():  # an untrained one would decide nothing
        for parameter in policy.network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


def test_chosen_means_are_what_the_environment_was_given(nat: NAT) -> None:
    given: list[dict[str, float]] = []

    class Recording(DecodingEnvironment):
        def step(self, action):
            given.append({name: values.mean().item() for name, values in action.items()})
            return super().step(action)

    policy = policy_of(0.7)
    rollout = collect(
        Recording(nat, num_steps=STEPS, conditions=lambda e: e.remainder(3), noise=NoiseSource(0)),
        policy,
        lambda observation: observation["features"].new_zeros(EPISODES, 1),
        torch.arange(EPISODES),
        torch.randn(STEPS, EPISODES, 4),
        shared_first_step=ClassConditions(3).numbers,
    )
    means = chosen_means(policy.spec, rollout)
    expected = {f"{n}/{t}": v for t, values in enumerate(given) for n, v in values.items()}
    assert means == pytest.approx(expected)
    assert means.keys() == expected.keys()


def test_smoothed_policies_decode_with_their_memory(nat: NAT) -> None:
    tokenizer = Tokenizer(small(8, downsample_factors=(2, 2), codebook_size=64)).eval()
    policy = policy_of(0.7)
    generator = Generator(nat, tokenizer, lambda indices: indices.remainder(3), batch_size=4)

    def parameters(given: GaussianPolicy | PolicySession) -> torch.Tensor:
        batches = generator.batches(given, seed=0, num_samples=6)
        return torch.cat([batch.generation.parameters for batch in batches])

    torch.testing.assert_close(parameters(policy), parameters(PolicySession(policy)))
    assert not torch.allclose(parameters(policy), parameters(policy_of(0.0)))


def test_a_price_is_taken_for_each_step_used() -> None:
    paid = StepPrice(lambda outcome: outcome["worth"], 0.1)(
        {"worth": torch.tensor([1.0, 2.0]), "num_steps": torch.tensor([4, 2])}
    )
    torch.testing.assert_close(paid, torch.tensor([0.6, 1.8]))


def test_a_price_needs_a_way_to_end_early() -> None:
    recipe = get_recipe("tiny")
    priced = replace(recipe.policy, step_price=0.1)
    with pytest.raises(ValueError, match=r"step_price is 0\.1, but reveal_below is 0"):
        replace(recipe, policy=priced)
    assert replace(recipe, policy=priced, reveal_below=0.3).reveal_below == 0.3
    with pytest.raises(ValueError, match=r"reveal_below must be in \[0, 1\), got 1\.0"):
        replace(recipe, reveal_below=1.0)
    smoothed = replace(recipe.policy, smoothing=0.8)
    with pytest.raises(ValueError, match=r"smoothing is 0\.8.*but reveal_below is 0\.3"):
        replace(recipe, policy=smoothed, reveal_below=0.3)


def test_equal_conditions_have_equal_numbers() -> None:
    conditions, indices = ClassConditions(3), torch.arange(7)
    torch.testing.assert_close(
        conditions.numbers(indices), conditions.of_samples(indices).generator
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smoothing": 1.0}, r"policy\.smoothing must be in \[0, 1\), got 1\.0"),
        ({"step_price": -0.1}, r"policy\.step_price must be at least 0 and finite, got -0\.1"),
        ({"feature_dtype": "float16"}, r"policy\.feature_dtype must be .* got 'float16'"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(get_recipe("tiny").policy, **change)
