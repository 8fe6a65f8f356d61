"""The published policy file's parameter names."""

from collections.abc import Mapping

from torch import Tensor

from policyrl.networks import PolicyNetwork, PolicyNetworkConfig

# Official name of a module (AdaNAT `libs/policy.py`) -> ours.
_MODULES = {
    "x_embedder": "input_projection",
    "t_embedder.mlp.0": "time_embedding.mlp.0",
    "t_embedder.mlp.2": "time_embedding.mlp.2",
    "adaLN1.adaLN_modulation.1": "token_norm.modulation",
    "dw_conv": "depthwise",
    "pw_conv": "pointwise",
    "linear1": "layers.0",
    "adaLN2.adaLN_modulation.1": "norms.0.modulation",
    "linear2": "layers.1",
    "adaLN3.adaLN_modulation.1": "norms.1.modulation",
    "linear3": "head",
}


def import_policy_network(
    state: Mapping[str, Tensor], config: PolicyNetworkConfig
) -> PolicyNetwork:
    """Build a network from a state dict with the published parameter names.

    Args:
        state: official name -> tensor, of an actor or a critic.
        config: its sizes, with two `mlp_dims`.

    Raises:
        ValueError: naming the missing, unexpected or wrong-shaped parameters.
    """
    network = PolicyNetwork(config)
    expected = network.state_dict()
    official = {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in _MODULES.items()
        for kind in ("weight", "bias")
        if f"{ours}.{kind}" in expected
    }
    missing = sorted(official.keys() - state.keys())
    unexpected = sorted(state.keys() - official.keys())
    wrong = sorted(
        f"{theirs} {tuple(state[theirs].shape)} instead of {tuple(expected[ours].shape)}"
        for theirs, ours in official.items()
        if theirs in state and state[theirs].shape != expected[ours].shape
    )
    if missing or unexpected or wrong or len(official) != len(expected):
        raise ValueError(
            f"no published policy network for {config}: "
            f"missing {missing}, unexpected {unexpected}, wrong shapes {wrong}"
        )
    network.load_state_dict({ours: state[theirs] for theirs, ours in official.items()})
    return network
