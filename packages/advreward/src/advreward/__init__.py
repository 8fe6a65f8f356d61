"""Rewards for generative models, on frozen features: adversarial, pretrained, Frechet, mixed.

`advreward.clip` and `advreward.image_reward` are imported by their own names: they need the extra
``advreward[clip]``.
"""

from advreward.adversarial import AdversarialReward
from advreward.augment import AugmentConfig, Augmenter
from advreward.config import AdversarialConfig
from advreward.dino import DINO_VIT_S16, FrozenViT, dino_vit_s16
from advreward.discriminator import Discriminator, DiscriminatorConfig
from advreward.diversity import DiversityReward, novelty
from advreward.engine import LocalEngine
from advreward.features import FrozenFeatures, efficientnet_lite
from advreward.frechet import (
    FrechetReward,
    GaussianStatistics,
    frechet_credit,
    frechet_reference,
)
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
from advreward.mixture import MixtureReward
from advreward.pretrained import ClassifierScorer, PretrainedReward, SimilarityScorer
from advreward.protocols import (
    Engine,
    FeatureExtractor,
    ImageScorer,
    PooledFeatures,
    RewardModel,
)
from advreward.published import PublishedDiscriminator, PublishedHead, import_head
from advreward.weights import BackboneName, registry_weights

__all__ = [
    "DINO_VIT_S16",
    "AdversarialConfig",
    "AdversarialReward",
    "AugmentConfig",
    "Augmenter",
    "BackboneName",
    "ClassifierScorer",
    "Discriminator",
    "DiscriminatorConfig",
    "DiversityReward",
    "Engine",
    "FeatureExtractor",
    "FrechetReward",
    "FrozenFeatures",
    "FrozenViT",
    "GaussianStatistics",
    "ImageScorer",
    "LocalEngine",
    "LossName",
    "MixtureReward",
    "PooledFeatures",
    "PretrainedReward",
    "PublishedDiscriminator",
    "PublishedHead",
    "RewardModel",
    "RewardName",
    "SimilarityScorer",
    "accuracy",
    "bce_loss",
    "dino_vit_s16",
    "discriminator_loss",
    "efficientnet_lite",
    "frechet_credit",
    "frechet_reference",
    "gradient_penalty",
    "hinge_loss",
    "import_head",
    "novelty",
    "registry_weights",
    "reward_from_logits",
]
