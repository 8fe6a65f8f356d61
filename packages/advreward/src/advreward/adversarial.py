"""The adversarial reward: a discriminator trained against the generator pays its trajectories.

Paper sec. 3.3 (arXiv 2409.00342): a fixed reward can be gamed, one that keeps learning cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advreward.augment import Augmenter
from advreward.config import FEATURE_DTYPES, AdversarialConfig
from advreward.discriminator import Discriminator
from advreward.engine import LocalEngine
from advreward.losses import (
    accuracy,
    discriminator_loss,
    gradient_penalty,
    reward_from_logits,
)
from advreward.protocols import Engine, FeatureExtractor


class AdversarialReward:
    """Pays images by how real a discriminator finds them, and trains that discriminator.

    As a reward it is a deterministic function of one image and its condition. Training works on
    features, so that each image passes the frozen backbone once, however often it is used::

        real = reward.extract(real_images)           # once, cached
        fake = reward.extract(decoded_images)        # once per roll-out
        metrics = reward.update(real, real_labels, fake, fake_labels)

    Real images should have passed through the same tokenizer as the fakes: raw ones give the
    tokenizer away, and the discriminator then learns that instead of the decoding.

    Args:
        backbone: frozen features, see `advreward.efficientnet_lite`.
        discriminator: its heads; trained in place.
        config: how to train and pay.
        engine: precision and backward; one process by default.
        augmenter: what `extract_augmented` does to images first; None leaves them as they are.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        discriminator: Discriminator,
        config: AdversarialConfig | None = None,
        engine: Engine | None = None,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.config = config or AdversarialConfig()
        self.backbone = backbone
        self.discriminator = discriminator.eval()
        self.engine: Engine = engine or LocalEngine()
        self.augmenter = augmenter
        self.optimizer = torch.optim.AdamW(
            discriminator.parameters(),
            lr=self.config.learning_rate,
            betas=self.config.betas,
            weight_decay=0.0,
        )

    @property
    def condition_name(self) -> str:
        """Under which name an outcome holds the conditions: ``"labels"`` or ``"condition"``."""
        return self.discriminator.config.condition_name

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the rewards (B,) of an outcome.

        Args:
            outcome: ``"images"`` (B, 3, H, W) in [0, 1] and the conditions: ``"labels"`` (B,)
                int64, or ``"condition"`` (B, condition_dim) where the discriminator takes vectors.
        """
        images, conditions = outcome["images"], outcome[self.condition_name]
        size = self.config.extract_batch_size
        return torch.cat(
            [
                self.score(self.extract(part), part_conditions)
                for part, part_conditions in zip(
                    torch.split(images, size), torch.split(conditions, size), strict=True
                )
            ]
        )

    @torch.no_grad()
    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the features of images, in ``config.feature_dtype`` and on the images' device.

        The backbone runs without autocast, whatever surrounds the call: real and fake images are
        seen in the same precision.

        Args:
            images: (B, 3, H, W) in [0, 1], on the backbone's device.
        """
        dtype = FEATURE_DTYPES[self.config.feature_dtype]
        with torch.autocast(images.device.type, enabled=False):
            parts = [
                {name: x.to(dtype) for name, x in self.backbone(part).items()}
                for part in torch.split(images, self.config.extract_batch_size)
            ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def extract_augmented(self, images: Tensor, copies: int = 1) -> dict[str, Tensor]:
        """Returns the features of augmented images, to `update` with; never to `score`.

        Both sides go through here. Real images may do so once, ``copies`` times over, and stay
        cached: each augmented view is then a draw that repeats. Fakes are new in every cycle.

        Args:
            images: (B, 3, H, W) in [0, 1], on the backbone's device.
            copies: differently augmented views of each image.

        Returns:
            As `extract`, with ``copies * B`` rows: all images, then all images again...
        """
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        if self.augmenter is None:
            views = [self.extract(images)] * copies
        else:
            views = [self.extract(self.augmenter(images)) for _ in range(copies)]
        return {name: torch.cat([view[name] for view in views]) for name in views[0]}

    @torch.no_grad()
    def score(self, features: Mapping[str, Tensor], conditions: Tensor) -> Tensor:
        """Returns the rewards (B,) float32 of features from `extract`, without a gradient.

        As the features, they are computed without autocast: they do not depend on the engine.
        """
        return reward_from_logits(self.config.reward, self._logits(features, conditions))

    def update(
        self,
        real_features: Mapping[str, Tensor],
        real_conditions: Tensor,
        fake_features: Mapping[str, Tensor],
        fake_conditions: Tensor,
    ) -> dict[str, float]:
        """Takes one step of the discriminator on features from `extract`, cached on any device.

        The first call also fixes the heads' input standardisation from the real features of all
        processes, unless that has been done (`Discriminator.calibrate`).

        Returns:
            ``loss``, ``accuracy`` (0.5 is blind), ``real_score`` and ``fake_score`` (mean reward of
            each side before the step), ``grad_norm`` (before clipping) and ``skipped``, 1.0 where
            ``config.max_accuracy`` kept the step from being taken; its ``grad_norm`` is 0.

        Raises:
            FloatingPointError: on a gradient norm that is not finite; the step is not taken.
            ValueError: on conditions or feature maps that do not fit.
        """
        if not self.discriminator.is_calibrated:
            self.discriminator.calibrate(
                {name: self.engine.gather(x) for name, x in real_features.items()}
            )
        device = self.discriminator.calibrated.device
        conditions = torch.cat([real_conditions.to(device), fake_conditions.to(device)])
        counts = [len(real_conditions), len(fake_conditions)]
        # One pass, so that both sides meet the same spectral-norm estimate.
        both = self._joined(real_features, fake_features)
        self.discriminator.train()
        with self.engine.autocast():
            inputs = self.discriminator.standardize(both)
            for x in inputs.values():
                x.requires_grad_(self.config.gradient_penalty > 0)
            logits = self._judge(inputs, conditions)
            real, fake = torch.split(logits, counts)
            loss = discriminator_loss(self.config.loss, real, fake)
            if self.config.gradient_penalty:
                penalty = gradient_penalty(real, list(inputs.values()))
                loss = loss + 0.5 * self.config.gradient_penalty * penalty
        self.discriminator.eval()
        scalars = {
            "loss": loss.detach(),
            "accuracy": accuracy(real, fake),
            "real_score": reward_from_logits(self.config.reward, real.detach()).mean(),
            "fake_score": reward_from_logits(self.config.reward, fake.detach()).mean(),
        }
        skipped = self._leads(scalars["accuracy"])
        scalars["grad_norm"] = torch.zeros_like(loss) if skipped else self._differentiate(loss)
        values = torch.stack(tuple(scalars.values())).tolist()  # one transfer from the device
        metrics = dict(zip(scalars, values, strict=True)) | {"skipped": float(skipped)}
        if not math.isfinite(metrics["grad_norm"]):
            done = max((int(s["step"]) for s in self.optimizer.state.values()), default=0)
            raise FloatingPointError(
                f"the gradient norm is {metrics['grad_norm']} in update {done} of the "
                "discriminator; look for features that are not finite"
            )
        if not skipped:
            self.optimizer.step()
        return metrics

    @torch.no_grad()
    def overfitting(
        self,
        seen_features: Mapping[str, Tensor],
        seen_conditions: Tensor,
        heldout_features: Mapping[str, Tensor],
        heldout_conditions: Tensor,
    ) -> dict[str, float]:
        """Compares real images that the discriminator learned from with some that it never saw.

        Both sets must have been made alike: neither or both augmented, for one.

        Returns:
            ``heldout_accuracy``, the share of the held-out images' logits above 0, and
            ``heldout_gap``, by how much that of the seen ones is higher; 0 without overfitting.
        """
        shares = []
        for features, conditions in (
            (seen_features, seen_conditions),
            (heldout_features, heldout_conditions),
        ):
            logits = self._logits(features, conditions)
            shares.append((logits > 0).float().mean().item())
        return {"heldout_accuracy": shares[1], "heldout_gap": shares[0] - shares[1]}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs: tensors and builtins only, without the backbone."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "augmenter": {} if self.augmenter is None else self.augmenter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; the next update is the saved run's, on the CPU bit for bit."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.augmenter is not None:
            self.augmenter.load_state_dict(state["augmenter"])

    def _logits(self, features: Mapping[str, Tensor], conditions: Tensor) -> Tensor:
        """Returns float32 logits (B, K) of features from `extract`, in evaluation mode."""
        self.discriminator.eval()
        with torch.autocast(self.discriminator.calibrated.device.type, enabled=False):
            inputs = self.discriminator.standardize(self._moved(features))
            return self._judge(inputs, conditions)

    def _judge(self, standardized: Mapping[str, Tensor], conditions: Tensor) -> Tensor:
        self.discriminator.config.check_condition(conditions)
        device = self.discriminator.calibrated.device
        return self.discriminator.judge(standardized, conditions.to(device)).float()

    def _joined(
        self, real_features: Mapping[str, Tensor], fake_features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The discriminator's maps of both sides, the real ones first, where it computes."""
        for features in (real_features, fake_features):
            self.discriminator.check_features(features)
        real, fake = self._moved(real_features), self._moved(fake_features)
        return {
            name: torch.cat([real[name], fake[name]]) for name in self.discriminator.config.channels
        }

    def _moved(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device = self.discriminator.calibrated.device
        return {name: x.to(device) for name, x in features.items()}

    def _leads(self, accuracy: Tensor) -> bool:
        """Whether the update is to be skipped: one answer for all processes."""
        limit = self.config.max_accuracy
        return limit is not None and self.engine.gather(accuracy[None]).mean().item() > limit

    def _differentiate(self, loss: Tensor) -> Tensor:
        """Sets the gradients of the heads, clipped, and returns their norm before that."""
        self.optimizer.zero_grad(set_to_none=True)
        self.engine.backward(loss)
        limit = self.config.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(
            self.discriminator.parameters(), math.inf if limit is None else limit
        )
