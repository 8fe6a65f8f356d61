"""Published policy checkpoints: sizes from shapes, options, and files that must be refused."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from policyrl import (
    DECODING_COMPONENTS,
    GaussianPolicy,
    PolicyNetwork,
    PolicyNetworkConfig,
    load_policy,
    published_decoding_spec,
)
from policyrl.checkpoint import _MODULES

OPTIONS = Namespace(gen_steps=6, heu=1, action_std=[0.6], config="configs/in256.yaml", resume=None)


def config(feature_dim=12):
    return PolicyNetworkConfig(
        feature_dim=feature_dim,
        grid_size=(4, 4),
        num_outputs=4,
        hidden_dim=8,
        conv_channels=6,
        mlp_dims=(10, 9),
        time_dim=4,
    )


def official(network, prefix=""):
    """The network's weights by their official names."""
    state = network.state_dict()
    return {
        f"{prefix}{theirs}.{kind}": state[f"{ours}.{kind}"]
        for theirs, ours in _MODULES.items()
        for kind in ("weight", "bias")
        if f"{ours}.{kind}" in state
    }


def random_network(seed, **sizes):
    torch.manual_seed(seed)
    network = PolicyNetwork(config(**sizes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def assert_decides_as(loaded, network, *, residual):
    features = torch.randn(3, 16, network.config.feature_dim)
    expected = GaussianPolicy(network, published_decoding_spec(6, residual=residual)).eval()
    with torch.no_grad():
        for step in range(6):
            found, wanted = loaded(features, step), expected(features, step)
            assert all(torch.equal(found[name], wanted[name]) for name in DECODING_COMPONENTS)


def test_a_training_checkpoint(tmp_path):
    """What `train.py` saves: both copies of actor and critic, optimizers, options, counters."""
    network, other = random_network(0), random_network(1)
    model = {
        **official(other, "policy.actor."),
        **official(other, "policy.critic."),
        **official(network, "policy_old.actor."),
        **official(other, "policy_old.critic."),
    }
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5).state_dict()
    content = {
        "model": model,
        "discriminator": {"heads.0.weight": torch.zeros(2)},
        "d_optimizer": optimizer,
        "optimizer": optimizer,
        "args": OPTIONS,
        "global_step": 1000,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }
    torch.save(content, tmp_path / "ckpt_1000.pth")
    loaded = load_policy(tmp_path / "ckpt_1000.pth")
    assert not loaded.training
    assert loaded.network.config == network.config
    assert_decides_as(loaded, network, residual=True)


@pytest.mark.parametrize("prefix", ["actor.", ""])
@pytest.mark.parametrize("feature_dim", [8, 12])  # with and without a projection to the width 8
def test_bare_weights(tmp_path, prefix, feature_dim):
    network = random_network(0, feature_dim=feature_dim)
    torch.save(official(network, prefix), tmp_path / "policy.pth")
    loaded = load_policy(tmp_path / "policy.pth", num_steps=6, residual=False)
    assert_decides_as(loaded, network, residual=False)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return self.path.mkdir, ()


def test_a_malicious_file_is_not_run(tmp_path):
    options = Namespace(gen_steps=6, heu=0, out=Malicious(tmp_path / "trace"))
    torch.save({"model": official(random_network(0)), "args": options}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth holds more than tensors.*was not loaded"):
        load_policy(tmp_path / "evil.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_files_cut_off(tmp_path, share):
    path = tmp_path / "cut.pth"
    torch.save(official(random_network(0)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut\.pth .*fetch it again"):
        load_policy(path, num_steps=6, residual=False)


def without(name):
    state = official(random_network(0))
    del state[name]
    return state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (official(random_network(0)), "no options in it: give num_steps and residual"),
        ({"model": {"x": torch.zeros(1)}, "args": OPTIONS}, r"no published policy .*\['x'\]"),
        ([1, 2], "give num_steps"),
        ({"model": without("dw_conv.weight"), "args": OPTIONS}, r"missing \['dw_conv\.weight'\]"),
        ({"model": without("pw_conv.bias"), "args": OPTIONS}, r"missing \['pw_conv\.bias'\]"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth: .*{message}"):
        load_policy(tmp_path / "x.pth")


def test_a_critic_is_no_policy(tmp_path):
    state = official(random_network(0))
    state["linear3.weight"], state["linear3.bias"] = torch.zeros(1, 9), torch.zeros(1)
    torch.save(state, tmp_path / "critic.pth")
    with pytest.raises(ValueError, match=r"critic\.pth: it decides 1 numbers"):
        load_policy(tmp_path / "critic.pth", num_steps=6, residual=False)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_policy(tmp_path / "none.pth", num_steps=6, residual=False)
