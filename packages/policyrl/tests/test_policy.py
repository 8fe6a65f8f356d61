"""The Gaussian policy: noise, determinism, statistics, files."""

import json

import pytest
import torch
from policyrl import (
    GaussianPolicy,
    PolicyNetwork,
    PolicyNetworkConfig,
    PolicySession,
    decoding_spec,
)
from safetensors.torch import load_file, save_file

PRIOR = torch.tensor([[0.8, 2.0, 1.0, 0.0], [0.4, 1.0, 0.9, 1.0], [0.0, 0.0, 1.1, 2.0]])


def _policy(std=0.3, seed=0, smoothing=0.0, **options):
    config = PolicyNetworkConfig(
        feature_dim=6,
        grid_size=(3, 3),
        num_outputs=4,
        hidden_dim=8,
        conv_channels=4,
        mlp_dims=(8, 8),
        time_dim=8,
    )
    network = PolicyNetwork(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return GaussianPolicy(network, decoding_spec(PRIOR, smoothing=smoothing), std, **options)


def _observation(batch=5, seed=0):
    features = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(seed))
    return {"features": features, "timestep": torch.arange(batch) % 3}


def _noise(batch, seed=0):
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))


def test_actions_are_gaussian_around_the_mode():
    policy, observation = _policy(std=0.3), _observation(1)
    many = {key: value.expand(20000, *value.shape[1:]) for key, value in observation.items()}
    raw, log_prob = policy.act(many, _noise(20000))
    mean = policy.mode(observation)
    # Four standard errors of mean and standard deviation.
    assert (raw.mean(0) - mean[0]).abs().max() < 4 * 0.3 / 20000**0.5
    assert (raw.std(0) - 0.3).abs().max() < 4 * 0.3 / 40000**0.5
    again, entropy = policy.log_prob_entropy(many, raw)
    torch.testing.assert_close(log_prob, again, rtol=1e-5, atol=1e-4)
    assert -log_prob.mean().item() == pytest.approx(entropy.mean().item(), abs=0.05)


def test_the_noise_is_scaled_and_added():
    policy, observation = _policy(std=0.3), _observation()
    noise = _noise(5)
    raw, _ = policy.act(observation, noise)
    torch.testing.assert_close(raw, policy.mode(observation) + 0.3 * noise)


def test_a_learned_std_has_a_factor_for_each_component():
    policy, observation = _policy(std=0.3, learn_std=True), _observation(3)
    with torch.no_grad():
        policy.log_std_factor.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    std = 0.3 * torch.tensor([0.0, 1.0, -1.0, 0.5]).exp()
    raw, log_prob = policy.act(observation, _noise(3))
    torch.testing.assert_close(raw, policy.mode(observation) + std * _noise(3))
    normal = torch.distributions.Normal(policy.mode(observation), std)
    inert = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
    torch.testing.assert_close(log_prob, (normal.log_prob(raw) * inert).sum(1))
    again, entropy = policy.log_prob_entropy(observation, raw)
    torch.testing.assert_close(entropy, (normal.entropy() * inert).sum(1))
    (again.sum() + entropy.sum()).backward()
    assert (policy.log_std_factor.grad != 0).all()
    assert "std 0.3 0.815485 0.110364 0.494616" in policy.describe()


def test_the_inert_last_step_has_no_part_in_log_prob_and_gradient():
    policy, observation = _policy(), _observation(3)
    raw, log_prob = policy.act(observation, _noise(3))
    changed = raw.clone()
    changed[2, :2] += 1.0
    again, entropy = policy.log_prob_entropy(observation, changed)
    torch.testing.assert_close(again, log_prob)
    assert entropy[2].item() == pytest.approx(entropy[0].item() / 2)
    last = {key: value[2:] for key, value in observation.items()}
    policy.log_prob_entropy(last, raw[2:])[0].sum().backward()
    gradient = policy.network.head.weight.grad
    assert (gradient[:2] == 0).all()
    assert (gradient[2:] != 0).any()


def test_calling_it_decides_as_the_mode_without_gradient():
    policy, observation = _policy(), _observation(4)
    decision = policy(observation["features"], 1)
    steps = {**observation, "timestep": torch.ones(4, dtype=torch.int64)}
    expected = policy.spec.activate(policy.mode(steps), 1)
    assert set(decision) == set(expected)
    for name, values in decision.items():
        assert not values.requires_grad
        assert torch.equal(values, expected[name])


def test_a_session_remembers_the_smoothed_action():
    policy = _policy(smoothing=0.8)
    features = _observation(4)["features"]
    with pytest.raises(RuntimeError, match="PolicySession"):
        policy(features, 0)
    session = PolicySession(policy)
    assert session.num_steps == 3
    for _ in range(2):  # a second batch starts anew
        smoothed = torch.zeros(4, 4)
        for t in range(3):
            steps = torch.full((4,), t)
            raw = policy.mode({"features": features, "timestep": steps})
            smoothed = 0.8 * smoothed + 0.2 * raw
            decision, expected = session(features, t), policy.spec.activate(smoothed, t)
            for name, values in decision.items():
                assert not values.requires_grad
                torch.testing.assert_close(values, expected[name])


def test_a_session_without_smoothing_is_the_policy():
    policy, features = _policy(), _observation(4)["features"]
    session = PolicySession(policy)
    for t in range(3):
        expected = policy(features, t)
        for name, values in session(features, t).items():
            assert torch.equal(values, expected[name])


def test_a_session_refuses_a_step_out_of_order():
    session, features = PolicySession(_policy(smoothing=0.5)), _observation(4)["features"]
    session(features, 0)
    with pytest.raises(ValueError, match="timestep is 2 for 4 episodes, must be 0, or 1 for the 4"):
        session(features, 2)
    with pytest.raises(ValueError, match="timestep is 1 for 3 episodes"):
        session(features[:3], 1)


def test_statistics_describe_the_average():
    policy = _policy()
    with pytest.raises(RuntimeError, match="fit_statistics"):
        policy.to_static()
    assert "prior" in policy.describe()
    values = torch.rand(10, 3, 4, generator=torch.Generator().manual_seed(0))
    policy.fit_statistics(values)
    torch.testing.assert_close(policy.to_static(), values.mean(0))
    table = policy.describe()
    assert "10 episodes" in table
    assert f"{values[:, 0, 0].mean():.3f} +- {values[:, 0, 0].std(correction=0):.3f}" in table
    assert f"({values[:, 2, 0].mean():.3f})" in table
    for wrong in (values[0], values[:, :2], values[:0]):
        with pytest.raises(ValueError, match="values has shape"):
            policy.fit_statistics(wrong)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_std_is_refused(std):
    with pytest.raises(ValueError, match="std is"):
        _policy(std=std)


def test_a_network_of_wrong_width_is_refused():
    policy = GaussianPolicy(_policy().network, decoding_spec(PRIOR))
    policy.network.head = torch.nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r"\(5, 3\), must be \(B, 4\)"):
        policy.mode(_observation())


def test_a_saved_policy_is_the_same_policy(tmp_path):
    policy = _policy(smoothing=0.6, learn_std=True, learn_offsets=True)
    torch.nn.init.normal_(policy.offsets, generator=torch.Generator().manual_seed(1))
    policy.set_std(0.17)
    policy.fit_statistics(torch.rand(4, 3, 4))
    policy.save_pretrained(tmp_path)
    again = GaussianPolicy.from_pretrained(tmp_path)
    assert torch.equal(again.exploration_std, policy.exploration_std)
    assert torch.equal(again.to_static(), policy.to_static())
    assert torch.equal(again.mode(_observation()), policy.mode(_observation()))
    assert again.spec.to_config() == policy.spec.to_config()
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config) == {"network", "spec", "std", "learn_std", "learn_offsets"}


def test_offsets_move_the_steps_apart():
    policy, plain = _policy(learn_offsets=True), _policy()
    with torch.no_grad():
        policy.offsets[1, 2] = 0.5
    moved = policy.mode(_observation()) - plain.mode(_observation())
    expected = torch.zeros(5, 4)
    expected[_observation()["timestep"] == 1, 2] = 0.5
    torch.testing.assert_close(moved, expected)


def test_a_network_of_ones_own_is_handed_in_again(tmp_path):
    class Own(torch.nn.Linear):
        def forward(self, observation):
            return super().forward(observation["features"].mean(1))

    policy = GaussianPolicy(Own(6, 4), decoding_spec(PRIOR))
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not describe 'network'"):
        GaussianPolicy.from_pretrained(tmp_path)
    again = GaussianPolicy.from_pretrained(tmp_path, network=Own(6, 4))
    assert torch.equal(again.mode(_observation()), policy.mode(_observation()))


def test_incomplete_weights_are_refused(tmp_path):
    _policy().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["network.head.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    message = rf"{tmp_path.name}' do not fit the policy(.|\n)*network\.head\.weight"
    with pytest.raises(RuntimeError, match=message):
        GaussianPolicy.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(RuntimeError, match=rf"{tmp_path.name}' .* damaged"):
        GaussianPolicy.from_pretrained(tmp_path)
