"""What one package offers fits what another asks for.

Each function of the first part is a proof for the type checker: its argument has one package's
class, its result another package's Protocol. The tests below run the same pairs, because a type
checker cannot see shapes, keys or ranges.
"""

from __future__ import annotations

from collections.abc import Mapping

import advreward
import natgen
import policyrl
import pytest
import torch
import vqtok
from torch import Tensor, nn

NUM_STEPS = 3
NUM_CLASSES = 5


# Proofs for the type checker: each function is its own statement.


def static_schedule_is_a_decoding_policy(
    schedule: natgen.StaticSchedule,
) -> natgen.DecodingPolicy:
    return schedule


def learned_policy_is_a_decoding_policy(
    policy: policyrl.GaussianPolicy,
) -> natgen.DecodingPolicy:
    return policy


def policy_session_is_a_decoding_policy(
    session: policyrl.PolicySession,
) -> natgen.DecodingPolicy:
    return session


def decoding_is_an_environment(
    environment: natgen.DecodingEnvironment,
) -> policyrl.GenerativeEnvironment:
    return environment


def adversary_is_a_reward_model(reward: advreward.AdversarialReward) -> policyrl.RewardModel:
    return reward


def every_design_is_a_reward_model(
    pretrained: advreward.PretrainedReward,
    frechet: advreward.FrechetReward,
    diversity: advreward.DiversityReward,
    mixture: advreward.MixtureReward,
) -> tuple[policyrl.RewardModel, ...]:
    return pretrained, frechet, diversity, mixture


def any_reward_model_can_be_mixed(reward: policyrl.RewardModel) -> advreward.RewardModel:
    return reward


def frozen_features_are_perceptual(
    features: advreward.FrozenFeatures,
) -> vqtok.PerceptualFeatures:
    return features


def policy_network_reads_observations(
    network: policyrl.PolicyNetwork,
) -> policyrl.ObservationNetwork:
    return network


def network_is_a_logits_model(nat: natgen.NAT) -> natgen.LogitsModel:
    return nat


def one_engine_serves_every_trainer(
    engine: policyrl.LocalEngine,
) -> tuple[vqtok.Engine, natgen.Engine, policyrl.Engine, advreward.Engine]:
    return engine, engine, engine, engine


# The same pairs at work, as small as they come.


@pytest.fixture(scope="module")
def nat() -> natgen.NAT:
    torch.manual_seed(0)
    config = natgen.NATConfig(
        codebook_size=16,
        grid_size=(4, 4),
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=NUM_CLASSES,
    )
    return natgen.NAT(config).eval()


@pytest.fixture(scope="module")
def environment(nat: natgen.NAT) -> natgen.DecodingEnvironment:
    return natgen.DecodingEnvironment(
        nat,
        num_steps=NUM_STEPS,
        conditions=lambda episodes: episodes % NUM_CLASSES,
        noise=natgen.NoiseSource(0),
    )


def network(num_outputs: int) -> policyrl.PolicyNetwork:
    return policyrl.PolicyNetwork(
        policyrl.PolicyNetworkConfig(
            feature_dim=24,
            grid_size=(4, 4),
            num_outputs=num_outputs,
            hidden_dim=16,
            conv_channels=8,
            mlp_dims=(16,),
        )
    )


@pytest.fixture
def policy() -> policyrl.GaussianPolicy:
    torch.manual_seed(0)
    prior = natgen.published(NUM_STEPS).values
    policy = policyrl.GaussianPolicy(network(4), policyrl.decoding_spec(prior), std=0.3)
    return policy.eval()


@pytest.fixture(scope="module")
def backbone() -> advreward.FrozenFeatures:
    return advreward.efficientnet_lite("lite0", input_size=32)


@pytest.fixture(scope="module")
def reward(backbone: advreward.FrozenFeatures) -> advreward.AdversarialReward:
    torch.manual_seed(0)
    config = advreward.DiscriminatorConfig(channels=backbone.channels, num_classes=NUM_CLASSES)
    return advreward.AdversarialReward(backbone, advreward.Discriminator(config))


def test_components_have_the_same_names_in_the_same_order() -> None:
    assert natgen.COMPONENTS == policyrl.DECODING_COMPONENTS


def test_an_untrained_policy_decodes_as_its_prior(
    nat: natgen.NAT, policy: policyrl.GaussianPolicy
) -> None:
    labels = torch.arange(NUM_CLASSES)
    noise = natgen.NoiseSource(1)
    schedule = natgen.published(NUM_STEPS)
    learned = natgen.generate(nat, policy, labels, sample_indices=labels, noise=noise)
    static = natgen.generate(nat, schedule, labels, sample_indices=labels, noise=noise)
    # The published guidance of the first step, 0.001, lies in the policy's dead zone: it is 0.
    expected = static.parameters.where(static.parameters > 0.01, 0.0)
    expected[:, -1, :2] = static.parameters[:, -1, :2]  # inert, kept as they are
    torch.testing.assert_close(learned.parameters, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(learned.tokens, static.tokens)


def test_a_smoothed_policy_decodes_in_a_session(nat: natgen.NAT) -> None:
    prior = natgen.published(NUM_STEPS).values
    smoothed = policyrl.GaussianPolicy(network(4), policyrl.decoding_spec(prior, smoothing=0.8))
    torch.nn.init.ones_(smoothed.network.head.bias)  # type: ignore[arg-type, union-attr]
    labels = torch.arange(NUM_CLASSES)
    session = policyrl.PolicySession(smoothed)
    generation = natgen.generate(
        nat, session, labels, sample_indices=labels, noise=natgen.NoiseSource(1)
    )
    # A constant raw action of 1 is approached as 1 - 0.8^(t + 1).
    for t in range(NUM_STEPS):
        raw = torch.full((1, 4), 1 - 0.8 ** (t + 1))
        expected = torch.stack(list(smoothed.spec.activate(raw, t).values()), dim=-1)
        torch.testing.assert_close(generation.parameters[:, t], expected.expand(NUM_CLASSES, -1))


def test_the_policys_average_is_a_schedule(
    nat: natgen.NAT, policy: policyrl.GaussianPolicy
) -> None:
    labels = torch.arange(NUM_CLASSES)
    generation = natgen.generate(
        nat, policy, labels, sample_indices=labels, noise=natgen.NoiseSource(1)
    )
    policy.fit_statistics(generation.parameters)
    schedule = natgen.StaticSchedule(policy.to_static())
    assert schedule.num_steps == policy.num_steps
    torch.testing.assert_close(schedule.values, generation.parameters.mean(dim=0))


def test_decoding_keeps_the_promises_of_an_environment(
    environment: natgen.DecodingEnvironment, policy: policyrl.GaussianPolicy
) -> None:
    assert isinstance(environment, policyrl.GenerativeEnvironment)
    episodes = torch.tensor([7, 2])
    observation: Mapping[str, Tensor] = environment.reset(episodes)
    for timestep in range(environment.num_steps):
        assert observation["features"].shape == (2, 16, 24)
        assert observation["timestep"].tolist() == [timestep, timestep]
        assert observation["timestep"].dtype == torch.int64
        raw, log_prob = policy.act(observation, torch.randn(2, 4))
        assert raw.shape == (2, 4)
        assert log_prob.shape == (2,)
        action = policy.spec.activate(raw, observation["timestep"])
        observation, rewards, terminated = environment.step(action)
        assert rewards.tolist() == [0.0, 0.0]
        assert terminated.dtype == torch.bool
        assert terminated.tolist() == [timestep == NUM_STEPS - 1] * 2
    outcome = environment.outcome()
    assert outcome["tokens"].shape == (2, 4, 4)
    assert outcome["labels"].tolist() == [2, 2]


def test_a_rollout_goes_through_all_packages(
    environment: natgen.DecodingEnvironment,
    policy: policyrl.GaussianPolicy,
    reward: advreward.AdversarialReward,
) -> None:
    torch.manual_seed(0)
    tokenizer = vqtok.Tokenizer(
        vqtok.small(16, downsample_factors=(2, 2), base_channels=8, codebook_size=16)
    ).eval()

    def judge(outcome: Mapping[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            images = tokenizer.decode(outcome["tokens"])
        assert images.shape == (6, 3, 16, 16)
        assert 0 <= images.min() <= images.max() <= 1
        return reward({"images": images, "labels": outcome["labels"]})

    value_network: nn.Module = network(1)
    rollout = policyrl.collect(
        environment,
        policy,
        value_network,
        torch.arange(6),
        torch.randn(NUM_STEPS, 6, 4, generator=torch.Generator().manual_seed(0)),
        reward_model=judge,
    )
    assert rollout.raw_actions.shape == (NUM_STEPS, 6, 4)
    assert rollout.rewards[:-1].eq(0).all()
    assert ((rollout.rewards[-1] > 0) & (rollout.rewards[-1] < 1)).all()


def test_episodes_of_a_class_share_their_first_features(
    environment: natgen.DecodingEnvironment, policy: policyrl.GaussianPolicy
) -> None:
    # Both batches hold the class 0, so its features are computed twice and kept once.
    rollout = policyrl.collect(
        environment,
        policy,
        network(1),
        torch.arange(6),
        torch.randn(NUM_STEPS, 6, 4, generator=torch.Generator().manual_seed(0)),
        batch_size=4,
        shared_first_step=lambda episodes: episodes % NUM_CLASSES,
        feature_dtype=torch.bfloat16,
    )
    assert rollout.observations["features"].shape == (NUM_CLASSES + (NUM_STEPS - 1) * 6, 16, 24)
    assert rollout.rows[0].tolist() == [0, 1, 2, 3, 4, 0]


def test_a_reward_does_not_depend_on_the_batch(reward: advreward.AdversarialReward) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    together = reward({"images": images, "labels": labels})
    alone = torch.cat(
        [
            reward({"images": images[i : i + 1], "labels": labels[i : i + 1]})
            for i in range(len(images))
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_frozen_features_carry_gradients_to_the_images(
    backbone: advreward.FrozenFeatures,
) -> None:
    image = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    loss = vqtok.perceptual_loss(backbone, image, torch.zeros(1, 3, 16, 16))
    loss.backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
