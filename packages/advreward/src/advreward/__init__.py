"""Rewards for generative models: adversarial, on frozen features."""

from advreward.features import BackboneName, FrozenFeatures, efficientnet_lite, registry_weights

__all__ = ["BackboneName", "FrozenFeatures", "efficientnet_lite", "registry_weights"]
