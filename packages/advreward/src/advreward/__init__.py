"""Adversarial rewards for generative models, on frozen features."""

from advreward.adversarial import AdversarialConfig, AdversarialReward
from advreward.augment import AugmentConfig, Augmenter
from advreward.dino import FrozenViT, dino_vit_s16
from advreward.discriminator import Discriminator, DiscriminatorConfig
from advreward.engine import LocalEngine
from advreward.features import FrozenFeatures, efficientnet_lite
from advreward.losses import (
    LossName,
    RewardName,
    accuracy,
    bce_loss,
    discriminator_loss,
    gradient_penalty,
    hinge_loss,
    reward_from_logits,
)
from advreward.protocols import Engine, FeatureExtractor
from advreward.published import PublishedDiscriminator, PublishedHead, import_head
from advreward.weights import BackboneName, registry_weights

__all__ = [
    "AdversarialConfig",
    "AdversarialReward",
    "AugmentConfig",
    "Augmenter",
    "BackboneName",
    "Discriminator",
    "DiscriminatorConfig",
    "Engine",
    "FeatureExtractor",
    "FrozenFeatures",
    "FrozenViT",
    "LocalEngine",
    "LossName",
    "PublishedDiscriminator",
    "PublishedHead",
    "RewardName",
    "accuracy",
    "bce_loss",
    "dino_vit_s16",
    "discriminator_loss",
    "efficientnet_lite",
    "gradient_penalty",
    "hinge_loss",
    "import_head",
    "registry_weights",
    "reward_from_logits",
]
