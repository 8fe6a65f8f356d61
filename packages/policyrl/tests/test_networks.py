"""The policy network: shapes, initialisation, conditioning, grids."""

import pytest
import torch
from policyrl import PolicyNetwork, PolicyNetworkConfig, import_policy_network


def _config(**changes):
    sizes = {
        "feature_dim": 12,
        "grid_size": (5, 3),
        "num_outputs": 4,
        "hidden_dim": 8,
        "conv_channels": 6,
        "mlp_dims": (16, 10),
        "time_dim": 32,
    }
    return PolicyNetworkConfig(**{**sizes, **changes})


def _observation(config, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    length = config.grid_size[0] * config.grid_size[1]
    features = torch.randn(batch, length, config.feature_dim, generator=generator)
    return {"features": features, "timestep": torch.arange(batch)}


def _randomise(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("grid_size", [(5, 3), (1, 1), (4, 4), (2, 7)])
@pytest.mark.parametrize("mlp_dims", [(16, 10), (9,), (8, 7, 6)])
def test_the_output_is_zero_at_first(grid_size, mlp_dims):
    config = _config(grid_size=grid_size, mlp_dims=mlp_dims)
    output = PolicyNetwork(config)(_observation(config))
    assert output.shape == (3, 4)
    assert torch.equal(output, torch.zeros(3, 4))


def test_the_projection_exists_only_where_widths_differ():
    names = [n for n, _ in PolicyNetwork(_config(feature_dim=8)).named_parameters()]
    assert not any(name.startswith("input_projection") for name in names)
    names = [n for n, _ in PolicyNetwork(_config()).named_parameters()]
    assert any(name.startswith("input_projection") for name in names)


def test_samples_are_independent_and_timestep_and_place_matter():
    config = _config()
    network = _randomise(PolicyNetwork(config))
    observation = _observation(config)
    output = network(observation)
    alone = network({key: value[1:2] for key, value in observation.items()})
    torch.testing.assert_close(output[1:2], alone, rtol=1e-5, atol=1e-6)
    later = network({**observation, "timestep": observation["timestep"] + 1})
    moved = network({**observation, "features": observation["features"].flip(1)})
    assert (later - output).abs().amax() > 1e-3
    assert (moved - output).abs().amax() > 1e-3


def test_the_gradient_reaches_every_parameter():
    config = _config()
    network = _randomise(PolicyNetwork(config))
    network(_observation(config)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_half_precision_features_are_accepted():
    config = _config()
    network = _randomise(PolicyNetwork(config))
    observation = _observation(config)
    low = {**observation, "features": observation["features"].bfloat16()}
    again = {**observation, "features": low["features"].float()}
    assert torch.equal(network(low), network(again))


def test_the_last_layer_is_not_rounded_under_autocast():
    config = _config()
    network = _randomise(PolicyNetwork(config))
    inputs = []
    network.head.register_forward_pre_hook(lambda module, args: inputs.extend(args))
    with torch.autocast("cpu", torch.bfloat16):
        output = network(_observation(config))
    assert output.dtype == torch.float32
    expected = inputs[0].double() @ network.head.weight.double().T + network.head.bias.double()
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dim": 0}, "feature_dim is 0"),
        ({"num_outputs": 0}, "num_outputs is 0"),
        ({"grid_size": (4,)}, r"grid_size is \(4,\)"),
        ({"grid_size": (4, 0)}, r"grid_size is \(4, 0\)"),
        ({"mlp_dims": ()}, r"mlp_dims is \(\)"),
        ({"time_dim": 7}, "time_dim is 7"),
        ({"pooled_size": (2, 0)}, r"pooled_size is \(2, 0\)"),
        ({"grid_size": None}, "grid_size is None, which needs a pooled_size"),
        ({"num_previous": -1}, "num_previous is -1"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _config(**changes)


def test_a_map_is_read_as_its_tokens():
    config = _config()
    network = _randomise(PolicyNetwork(config))
    observation = _observation(config)
    as_map = observation["features"].transpose(1, 2).unflatten(2, (5, 3))
    assert torch.equal(network({**observation, "features": as_map}), network(observation))


def test_a_pooled_network_reads_maps_of_any_size():
    network = _randomise(PolicyNetwork(_config(grid_size=None, pooled_size=(2, 2))))
    timestep = torch.arange(3)
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn(3, 12, 8, 8, generator=generator)
    outputs = [
        network({"features": features, "timestep": timestep})
        for features in (patch, patch.repeat(1, 1, 3, 1), patch[:, :, :3, :5], patch[:, :, :1, :1])
    ]
    assert {output.shape for output in outputs} == {(3, 4)}
    # Halves of the grid stay apart: what is above matters where it is.
    flipped = network({"features": patch.flip(2), "timestep": timestep})
    assert (flipped - outputs[0]).abs().amax() > 1e-3
    # The mean of a constant map is the constant, whatever the size; borders alone are padded.
    small, large = (
        network({"features": torch.ones(3, 12, size, size), "timestep": timestep})
        for size in (64, 128)
    )
    torch.testing.assert_close(small, large, rtol=0.05, atol=0.05)


def test_a_fixed_grid_may_be_pooled_too():
    config = _config(grid_size=(8, 8), pooled_size=(1, 1))
    network = PolicyNetwork(config)
    assert network.layers[0].in_features == config.conv_channels
    assert network(_observation(config)).shape == (3, 4)


def test_the_previous_action_conditions():
    config = _config(num_previous=2)
    network = _randomise(PolicyNetwork(config))
    observation = {**_observation(config), "previous_action": torch.zeros(3, 2)}
    output = network(observation)
    other = network({**observation, "previous_action": torch.ones(3, 2)})
    assert (other - output).abs().amax() > 1e-3
    assert torch.equal(PolicyNetwork(config)(observation), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (_config(), (3, 16, 12), r"\(3, 16, 12\), must be \(B, 15, 12\) or .* grid of 5x3"),
        (_config(), (3, 15, 11), r"must be \(B, 15, 12\)"),
        (_config(), (3, 12, 3, 5), r"\(B, 12, h, w\) for a grid of 5x3"),
        (
            _config(grid_size=None, pooled_size=(1, 1)),
            (3, 15, 12),
            r"must be \(B, 12, h, w\) for a grid of any size",
        ),
    ],
)
def test_features_of_another_grid_are_refused(config, shape, message):
    with pytest.raises(ValueError, match=message):
        PolicyNetwork(config)({"features": torch.zeros(shape), "timestep": torch.arange(3)})


def test_an_import_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"missing \['adaLN1.*unexpected \['x'\]"):
        import_policy_network({"x": torch.zeros(1)}, _config())
