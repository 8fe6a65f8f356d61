"""Adversarial rewards for generative models, on frozen features."""

from advreward.adversarial import AdversarialConfig, AdversarialReward
from advreward.discriminator import Discriminator, DiscriminatorConfig
from advreward.engine import LocalEngine
from advreward.features import (
    BackboneName,
    FrozenFeatures,
    efficientnet_lite,
    registry_weights,
)
from advreward.losses import (
    LossName,
    RewardName,
    accuracy,
    bce_loss,
    discriminator_loss,
    hinge_loss,
    reward_from_logits,
)
from advreward.protocols import Engine, FeatureExtractor

__all__ = [
    "AdversarialConfig",
    "AdversarialReward",
    "BackboneName",
    "Discriminator",
    "DiscriminatorConfig",
    "Engine",
    "FeatureExtractor",
    "FrozenFeatures",
    "LocalEngine",
    "LossName",
    "RewardName",
    "accuracy",
    "bce_loss",
    "discriminator_loss",
    "efficientnet_lite",
    "hinge_loss",
    "registry_weights",
    "reward_from_logits",
]
