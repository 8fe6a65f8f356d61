"""The PPO loss and its gradients against stable-baselines3, and its diagnostics by definition."""

import gymnasium
import numpy as np
import pytest
import torch
from policyrl import (
    ActionComponent,
    ActionSpec,
    GaussianPolicy,
    PPOConfig,
    clip_values,
    ppo_loss,
)
from stable_baselines3 import PPO
from torch.distributions import Normal, kl_divergence


def _loss(**changes):
    numbers = {
        "log_probs": torch.zeros(1),
        "old_log_probs": torch.zeros(1),
        "advantages": torch.ones(1),
        "values": torch.zeros(1),
        "returns": torch.zeros(1),
        "entropy": torch.zeros(1),
        "clip_range": 0.2,
        "vf_coef": 0.0,
        "ent_coef": 0.0,
    }
    return ppo_loss(**{**numbers, **changes})


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "has_gradient"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),  # clipped: no reason to go further
        (0.5, 2.0, -1.0, True),  # pessimistic: the way back stays open
        (1.5, -2.0, 3.0, True),
        (0.5, -2.0, 1.6, False),
    ],
)
def test_the_clipped_surrogate(ratio, advantage, expected, has_gradient):
    log_probs = torch.tensor([ratio]).log().requires_grad_()
    parts = _loss(log_probs=log_probs, advantages=torch.tensor([advantage]))
    assert parts.loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(parts.loss, log_probs)
    assert (gradient.item() != 0) == has_gradient
    assert parts.clip_fraction.item() == float(abs(ratio - 1) > 0.2)


def test_a_weight_of_zero_leaves_a_decision_out():
    numbers = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    names = ("log_probs", "old_log_probs", "advantages", "values", "returns")
    some = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    options = {"vf_coef": 0.5, "ent_coef": 0.1}
    weighted = _loss(
        **dict(zip(names, numbers, strict=True)), entropy=numbers[0], **options, weights=some / 4
    )
    chosen = numbers[:, some]
    alone = _loss(**dict(zip(names, chosen, strict=True)), entropy=chosen[0], **options)
    for ours, expected in zip(weighted, alone, strict=True):
        torch.testing.assert_close(ours, expected)


def test_approx_kl_estimates_the_kl_divergence():
    old, new = Normal(0.0, 1.0), Normal(0.3, 1.0)
    torch.manual_seed(0)
    actions = old.sample((200_000,))
    parts = _loss(
        log_probs=new.log_prob(actions),
        old_log_probs=old.log_prob(actions),
        advantages=torch.zeros(200_000),
    )
    assert parts.approx_kl.item() == pytest.approx(kl_divergence(old, new).item(), rel=0.02)


def test_chunks_average_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    names = ("log_probs", "old_log_probs", "advantages", "values", "returns", "entropy")
    numbers = dict(zip(names, torch.randn(6, 10, generator=generator).double(), strict=True))
    coefficients = {"vf_coef": 0.5, "ent_coef": 0.01}
    whole = _loss(**numbers, **coefficients)
    parts = [
        _loss(**{k: v[s] for k, v in numbers.items()}, **coefficients)
        for s in (slice(0, 7), slice(7, 10))
    ]
    for total, a, b in zip(whole, *parts, strict=True):
        torch.testing.assert_close(total, (0.7 * a + 0.3 * b).to(total))


class _Blank(gymnasium.Env):
    """Spaces only; stable-baselines3 wants an environment to know them."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, **_):
        return np.zeros(3, np.float32), {}


class _Actor(torch.nn.Module):
    """The mean action of a stable-baselines3 policy."""

    def __init__(self, policy):
        super().__init__()
        self.latent, self.head = policy.mlp_extractor.policy_net, policy.action_net

    def forward(self, observation):
        return self.head(self.latent(observation["numbers"]))


@pytest.mark.parametrize("value_clip_range", [None, 0.1])
def test_loss_and_gradients_agree_with_stable_baselines3(value_clip_range):
    count, std = 32, 0.5
    options = {"clip_range": 0.2, "vf_coef": 0.5, "ent_coef": 0.01}
    model = PPO(
        "MlpPolicy",
        _Blank(),
        n_steps=count,
        batch_size=count,
        n_epochs=1,
        normalize_advantage=False,
        max_grad_norm=1e9,
        policy_kwargs={"net_arch": [8], "optimizer_class": torch.optim.SGD},
        learning_rate=0.0,
        seed=0,
        device="cpu",
        clip_range_vf=value_clip_range,
        **options,
    )
    sb3 = model.policy
    spec = ActionSpec.without_prior(
        [ActionComponent(name=name, squash="identity") for name in "ab"], num_steps=1
    )
    policy = GaussianPolicy(_Actor(sb3), spec, std=std, learn_std=True)
    generator = torch.Generator().manual_seed(1)
    observation = {
        "numbers": torch.randn(count, 3, generator=generator),
        "timestep": torch.zeros(count, dtype=torch.int64),
    }
    with torch.no_grad():
        sb3.log_std.fill_(np.log(std))
        raw, old_log_probs = policy.act(observation, torch.randn(count, 2, generator=generator))
        old_log_probs += 0.3 * torch.randn(count, generator=generator)
        sb3.action_net.weight.mul_(30)
        old_values = sb3.predict_values(observation["numbers"]).squeeze(1)
        old_values += 0.2 * torch.randn(count, generator=generator)
    advantages, returns = torch.randn(2, count, generator=generator)

    buffer = model.rollout_buffer
    buffer.reset()
    for i in range(count):
        state, action = observation["numbers"][i : i + 1].numpy(), raw[i : i + 1].numpy()
        old = old_values[i : i + 1], old_log_probs[i : i + 1]
        buffer.add(state, action, np.zeros(1), np.zeros(1), *old)
    buffer.advantages[:, 0], buffer.returns[:, 0] = advantages.numpy(), returns.numpy()
    model._setup_learn(total_timesteps=count)
    model.train()
    expected = {name: p.grad.clone() for name, p in sb3.named_parameters()}

    sb3.zero_grad()
    log_probs, entropy = policy.log_prob_entropy(observation, raw)
    values = sb3.predict_values(observation["numbers"]).squeeze(1)
    parts = ppo_loss(
        log_probs=log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        values=clip_values(values, old_values, value_clip_range),
        returns=returns,
        entropy=entropy,
        **options,
    )
    parts.loss.backward()
    logged = model.logger.name_to_value
    for ours, theirs in {
        "loss": "loss",
        "policy_loss": "policy_gradient_loss",
        "value_loss": "value_loss",
        "approx_kl": "approx_kl",
        "clip_fraction": "clip_fraction",
    }.items():
        value = getattr(parts, ours).item()
        assert value == pytest.approx(logged[f"train/{theirs}"], rel=1e-4, abs=1e-6), ours
    assert parts.entropy.item() == pytest.approx(-logged["train/entropy_loss"], rel=1e-6)
    assert 0.1 < parts.clip_fraction.item() < 0.9
    if value_clip_range is not None:
        assert 0.1 < ((values - old_values).abs() > value_clip_range).float().mean() < 0.9
    sb3.log_std.grad = policy.log_std_factor.grad
    for name, parameter in sb3.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_the_std_schedule_is_a_staircase():
    config = PPOConfig(std_schedule=((0, 0.6), (500, 0.3), (900, 0.1)))
    assert [config.std_at(u) for u in (0, 499, 500, 899, 900, 5000)] == [
        0.6,
        0.6,
        0.3,
        0.3,
        0.1,
        0.1,
    ]
    assert PPOConfig().std_at(3) is None
    assert PPOConfig.published().std_at(500) == 0.3
    assert PPOConfig.published().chunk_size == 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"value_learning_rate": -1.0}, "value_learning_rate is -1.0"),
        ({"clip_range": 0.0}, "clip_range is 0.0"),
        ({"value_clip_range": 0.0}, "value_clip_range is 0.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"target_kl": float("nan")}, "target_kl is nan"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"gae_lambda": -0.1}, "gae_lambda is -0.1"),
        ({"vf_coef": -1.0}, "vf_coef is -1.0"),
        ({"update_epochs": 0}, "update_epochs is 0"),
        ({"num_minibatches": 0}, "num_minibatches is 0"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"std_schedule": ((1, 0.5),)}, "must start at 0 and rise"),
        ({"std_schedule": ((0, 0.5), (0, 0.4))}, "must start at 0 and rise"),
        ({"std_schedule": ((0, 0.0),)}, "each std must be positive"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**changes)
