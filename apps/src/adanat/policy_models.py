"""The policy of a recipe around its prior schedule, and the value network beside it."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from natgen import NAT
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from torch import Tensor

from adanat.recipes.base import Recipe

FEATURE_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16}
)
"""What `PolicyRecipe.feature_dtype` names."""


def policy_networks(
    recipe: Recipe, nat: NAT, prior: Tensor
) -> tuple[GaussianPolicy, PolicyNetwork]:
    """A new policy, and a value network of the same form, on the transformer's device.

    Args:
        recipe: Sizes, and which numbers are learned.
        nat: Whose features they see.
        prior: (T, 4) numbers of the schedule that the policy starts as.
    """
    policy_recipe, device = recipe.policy, next(nat.parameters()).device
    spec = decoding_spec(
        prior,
        learned=policy_recipe.learned,
        mask_ratio_dead_zone=recipe.reveal_below,
        smoothing=policy_recipe.smoothing,
    )

    def network(num_outputs: int) -> PolicyNetwork:
        config = PolicyNetworkConfig(
            feature_dim=nat.config.embed_dim,
            grid_size=nat.feature_grid,
            num_outputs=num_outputs,
            hidden_dim=policy_recipe.hidden_dim,
            conv_channels=policy_recipe.conv_channels,
            mlp_dims=policy_recipe.mlp_dims,
            # What a smoothed choice leads to depends on the one before.
            num_previous=spec.num_actions if policy_recipe.smoothing else 0,
        )
        return PolicyNetwork(config).to(device)

    policy = GaussianPolicy(
        network(spec.num_actions),
        spec,
        learn_std=policy_recipe.learn_std,
        learn_offsets=policy_recipe.learn_offsets,
    )
    return policy.to(device), network(1)
