"""The policy network against the record (reference section 4), weights regenerated."""

import json
from pathlib import Path

import numpy as np
import torch
from policyrl import PolicyNetworkConfig, import_policy_network
from safetensors import safe_open
from torch import Tensor


def regenerate(metadata: dict[str, str]) -> dict[str, Tensor]:
    shapes = json.loads(metadata["state_shapes"])
    random = np.random.RandomState(int(metadata["weight_seed"]))
    scale = np.float32(metadata["weight_scale"])
    return {
        name: torch.from_numpy(random.standard_normal(shapes[name]).astype(np.float32) * scale)
        for name in json.loads(metadata["state_keys_sorted"])
    }


def test_action_means(reference_dir: Path) -> None:
    with safe_open(reference_dir / "policy_net.safetensors", "pt") as file:
        metadata = file.metadata()
        state = regenerate(metadata)
        for name, pick in {"first": lambda x: x[0], "last": lambda x: x[-1]}.items():
            picked = torch.stack([pick(value.flatten()) for value in state.values()])
            assert torch.equal(picked, file.get_tensor(f"check.{name}"))
        means = torch.stack([value.mean() for value in state.values()])
        torch.testing.assert_close(means, file.get_tensor("check.mean"), rtol=1e-4, atol=1e-6)

        features, timestep = file.get_tensor("in.feat"), file.get_tensor("in.timestep")
        expected = file.get_tensor("out.mean")
    sizes = json.loads(metadata["config"])
    side = round(features.shape[1] ** 0.5)
    width = {name: len(value) for name, value in state.items()}
    config = PolicyNetworkConfig(
        feature_dim=sizes["in_channels"],
        grid_size=(side, side),
        num_outputs=sizes["out_channels"],
        hidden_dim=sizes["hidden_size"],
        conv_channels=width["pw_conv.bias"],
        mlp_dims=(width["linear1.bias"], width["linear2.bias"]),
        time_dim=state["t_embedder.mlp.0.weight"].shape[1],
    )
    network = import_policy_network(state, config)
    with torch.no_grad():
        mean = network({"features": features, "timestep": timestep})
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)
