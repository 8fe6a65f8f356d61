"""Published policies: their parameter names, and the files that the published training writes."""

import os
import pickle
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from policyrl.decoding import DECODING_COMPONENTS, published_decoding_spec
from policyrl.networks import PolicyNetwork, PolicyNetworkConfig
from policyrl.policy import GaussianPolicy

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
# Where the weights of a decision lie, the evaluated ones first; bare ones last.
_ACTORS = ("policy_old.actor.", "policy.actor.", "actor.", "")
# The published script keeps its options beside the weights. Such an object has attributes and no
# code; it is read as one of the standard library's plain ones.
_OPTIONS = (SimpleNamespace, "argparse.Namespace")


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


def load_policy(
    path: str | os.PathLike[str],
    *,
    num_steps: int | None = None,
    residual: bool | None = None,
    grid_size: tuple[int, int] | None = None,
) -> GaussianPolicy:
    """A policy from a checkpoint of the published training (AdaNAT `train.py`, `ckpt_<n>.pth`).

    The file holds actors and critics under "model" and the options of the training under "args".
    The actor that was evaluated is taken (`policy_old.actor`); its sizes are read off the shapes.
    A bare state dict of an actor-critic or of the network will do. Nothing else than tensors, plain
    containers and such options is unpickled.

    Args:
        path: the file.
        num_steps: decoding steps T; default those of the options.
        residual: whether the hand-made schedule is added, see `published_decoding_spec`; default as
            the options say.
        grid_size: (height, width) of the feature grid; default a square one of even sides.

    Returns:
        The policy, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: it is damaged, holds other objects, or no published policy of
            four numbers; or it does not say what was left out here.
    """
    content = _read(Path(path))
    try:
        wrapped = content if isinstance(content, Mapping) else {}
        options = vars(wrapped.get("args", SimpleNamespace()))
        num_steps = options.get("gen_steps") if num_steps is None else num_steps
        residual = options.get("heu") if residual is None else residual
        if num_steps is None or residual is None:
            raise ValueError("there are no options in it: give num_steps and residual")
        state = _actor(wrapped.get("model", wrapped))
        network = import_policy_network(state, _infer_config(state, grid_size))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return GaussianPolicy(
        network, published_decoding_spec(num_steps, residual=bool(residual))
    ).eval()


def _read(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([_OPTIONS]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain containers, or is damaged, and was not "
            "loaded; fetch it again, or, if you trust it, load it yourself and pass the actor's "
            "state dict to import_policy_network"
        ) from error
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(f"{path} is cut off or damaged; fetch it again ({error})") from error
    return content


def _actor(weights: object) -> dict[str, Tensor]:
    """The actor's parameters by their official names."""
    names = list(weights) if isinstance(weights, Mapping) else []
    prefix = next((prefix for prefix in _ACTORS if f"{prefix}linear3.weight" in names), None)
    if not isinstance(weights, Mapping) or prefix is None:
        raise ValueError(f"no published policy is in it, but {sorted(map(str, names))}")
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }


def _infer_config(
    state: Mapping[str, Tensor], grid_size: tuple[int, int] | None
) -> PolicyNetworkConfig:
    missing = sorted({f"{name}.weight" for name in _MODULES} - {"x_embedder.weight"} - state.keys())
    if missing:
        raise ValueError(f"no published policy network: missing {missing}")
    num_outputs, conv_channels, hidden_dim = (
        len(state[f"{name}.weight"]) for name in ("linear3", "pw_conv", "dw_conv")
    )
    if num_outputs != len(DECODING_COMPONENTS):
        raise ValueError(
            f"it decides {num_outputs} numbers, but a published policy these: {DECODING_COMPONENTS}"
        )
    if grid_size is None:
        side = 2 * isqrt(state["linear1.weight"].shape[1] // conv_channels)
        grid_size = (side, side)
    embedder = state.get("x_embedder.weight")  # there is none where the widths are equal
    return PolicyNetworkConfig(
        feature_dim=hidden_dim if embedder is None else embedder.shape[1],
        grid_size=grid_size,
        num_outputs=num_outputs,
        hidden_dim=hidden_dim,
        conv_channels=conv_channels,
        mlp_dims=(len(state["linear1.weight"]), len(state["linear2.weight"])),
        time_dim=state["t_embedder.mlp.0.weight"].shape[1],
    )
