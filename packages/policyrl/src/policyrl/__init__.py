"""Policies, value networks, rollouts and PPO over any environment with named actions."""

from policyrl.actions import PREVIOUS_ACTION, ActionSpec
from policyrl.advantages import (
    Targets,
    compute_targets,
    explained_variance,
    generalized_advantages,
    returns_to_go,
)
from policyrl.checkpoint import import_policy_network, load_policy
from policyrl.components import ActionComponent
from policyrl.decoding import DECODING_COMPONENTS, decoding_spec, published_decoding_spec
from policyrl.distributions import gaussian_entropy, gaussian_log_prob
from policyrl.engine import LocalEngine
from policyrl.networks import PolicyNetwork, PolicyNetworkConfig
from policyrl.policy import GaussianPolicy
from policyrl.ppo import PPOConfig, PPOLoss, clip_values, ppo_loss
from policyrl.protocols import (
    Engine,
    Environment,
    GenerativeEnvironment,
    ObservationNetwork,
    RewardModel,
)
from policyrl.rollout import Rollout, collect
from policyrl.session import PolicySession
from policyrl.trainer import PPOTrainer

__all__ = [
    "DECODING_COMPONENTS",
    "PREVIOUS_ACTION",
    "ActionComponent",
    "ActionSpec",
    "Engine",
    "Environment",
    "GaussianPolicy",
    "GenerativeEnvironment",
    "LocalEngine",
    "ObservationNetwork",
    "PPOConfig",
    "PPOLoss",
    "PPOTrainer",
    "PolicyNetwork",
    "PolicyNetworkConfig",
    "PolicySession",
    "RewardModel",
    "Rollout",
    "Targets",
    "clip_values",
    "collect",
    "compute_targets",
    "decoding_spec",
    "explained_variance",
    "gaussian_entropy",
    "gaussian_log_prob",
    "generalized_advantages",
    "import_policy_network",
    "load_policy",
    "ppo_loss",
    "published_decoding_spec",
    "returns_to_go",
]
