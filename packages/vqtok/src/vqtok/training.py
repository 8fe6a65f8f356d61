"""Training a tokenizer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vqtok.adversarial import AdversarialTrainingConfig, Adversary
from vqtok.engine import LocalEngine
from vqtok.losses import (
    RECONSTRUCTION_LOSSES,
    ReconstructionLoss,
    perceptual_loss,
    reconstruction_loss,
)
from vqtok.protocols import Engine, PerceptualFeatures
from vqtok.quantizer import usage_and_perplexity
from vqtok.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainingConfig:
    """How a tokenizer is trained.

    Attributes:
        learning_rate: of AdamW, at its peak.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup_steps: steps of linear warm-up.
        total_steps: if given, the rate falls to 0 over this many steps along a half cosine;
            otherwise it stays constant after the warm-up.
        reconstruction_loss: "l1" or "l2" pixel distance.
        reconstruction_weight: weight of the pixel distance.
        perceptual_weight: weight of the perceptual distance; needs features when above 0.
        ema_decay: decay of the averaged weights, once the average is warm: see `averaging_decay`.
        grad_clip: largest gradient norm, None for no clipping.
        adversarial: a patch discriminator to train against, None for none.

    Raises:
        ValueError: if a value is out of range.
    """

    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 0
    total_steps: int | None = None
    reconstruction_loss: ReconstructionLoss = "l1"
    reconstruction_weight: float = 1.0
    perceptual_weight: float = 0.0
    ema_decay: float = 0.999
    grad_clip: float | None = 1.0
    adversarial: AdversarialTrainingConfig | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        for name in ("weight_decay", "warmup_steps", "reconstruction_weight", "perceptual_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.total_steps is not None and self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"total_steps must exceed warmup_steps ({self.warmup_steps}), "
                f"got {self.total_steps}"
            )
        if self.reconstruction_loss not in RECONSTRUCTION_LOSSES:
            raise ValueError(
                f"reconstruction_loss must be one of {RECONSTRUCTION_LOSSES}, "
                f"got {self.reconstruction_loss!r}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip must be positive or None, got {self.grad_clip}")

    def learning_rate_factor(self, step: int) -> float:
        """Share of the peak rate at ``step``, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.total_steps is None:
            return 1.0
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def averaging_decay(self, step: int) -> float:
        """Decay of the average at ``step``, counted from 0.

        It starts low and rises to ``ema_decay``, so that a short training leaves no trace of the
        random weights: min(ema_decay, (1 + step) / (10 + step)).
        """
        return min(self.ema_decay, (1 + step) / (10 + step))


class TokenizerTrainer:
    """Trains a tokenizer on batches of images.

    The loss is ``reconstruction_weight`` times the pixel distance, plus the commitment loss (with
    the weight of the tokenizer's config), plus ``perceptual_weight`` times the perceptual distance.
    With ``config.adversarial``, a patch discriminator learns to tell reconstructions from images,
    and its verdict is added with its weight times the adaptive weight.
    Replacing dead codes draws from torch's global generator: restore it, too, for a resumed run
    that continues bit for bit on the CPU.

    Args:
        tokenizer: trained in place, on the device where it is.
        config: how to train.
        perceptual: features for the perceptual distance.
        engine: precision and backward pass.

    Raises:
        ValueError: if ``perceptual_weight`` and ``perceptual`` do not go together, or the images
            are too small for the discriminator.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: TokenizerTrainingConfig,
        perceptual: PerceptualFeatures | None = None,
        engine: Engine | None = None,
    ) -> None:
        if (perceptual is None) != (config.perceptual_weight == 0):
            given = "no features" if perceptual is None else "features"
            raise ValueError(
                "perceptual features are needed exactly if perceptual_weight is above 0, "
                f"got {given} and perceptual_weight {config.perceptual_weight}"
            )
        self.tokenizer = tokenizer
        self.config = config
        self._perceptual = perceptual
        self._engine = engine or LocalEngine()
        self._optimizer = AdamW(
            tokenizer.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._scheduler = LambdaLR(self._optimizer, config.learning_rate_factor)
        self._ema = AveragedModel(tokenizer, multi_avg_fn=get_ema_multi_avg_fn()).eval()
        self._adversary = self._make_adversary()

    @property
    def ema_tokenizer(self) -> Tokenizer:
        """The tokenizer with averaged weights and the current codebook, in evaluation mode.

        It is the trainer's own, so it changes with further steps; copy or save it to keep it.
        """
        return cast(Tokenizer, self._ema.module)

    @property
    def trained_modules(self) -> tuple[nn.Module, ...]:
        """What `step` changes: the tokenizer and, if there is one, the discriminator.

        An engine of several processes keeps these equal.
        """
        if self._adversary is None:
            return (self.tokenizer,)
        return self.tokenizer, self._adversary.discriminator

    def step(self, images: Tensor) -> dict[str, float]:
        """Makes one update.

        Args:
            images: (B, C, H, W) floating point in [0, 1], on the tokenizer's device.

        Returns:
            ``loss`` and its weighted-in parts ``reconstruction``, ``commitment`` and, if used,
            ``perceptual`` and ``adversarial`` (minus the mean logit); ``adaptive_weight``;
            ``usage`` and ``perplexity`` of the codes in this batch; ``grad_norm`` before clipping;
            ``learning_rate`` of this step. While the discriminator learns: ``discriminator_loss``,
            ``discriminator_grad_norm`` before clipping and the mean ``real_logits`` and
            ``fake_logits``.

        Raises:
            FloatingPointError: on a gradient norm that is not finite; no weight is changed, but the
                codes have followed the batch already: go on from a saved state.
        """
        config = self.config
        step = self._scheduler.last_epoch
        self.tokenizer.train()
        with self._engine.autocast():
            output = self.tokenizer(images)
            parts = {
                "reconstruction": reconstruction_loss(
                    output.reconstruction, images, config.reconstruction_loss
                ),
                "commitment": output.commitment_loss,
            }
            loss = config.reconstruction_weight * parts["reconstruction"] + parts["commitment"]
            if self._perceptual is not None:
                parts["perceptual"] = perceptual_loss(
                    self._perceptual, output.reconstruction, images
                )
                loss = loss + config.perceptual_weight * parts["perceptual"]

        verdict: dict[str, Tensor] = {}
        if self._adversary is not None:
            penalty, terms = self._adversary.penalty(
                step, loss, output.reconstruction, self.tokenizer.decoder.conv_out.weight
            )
            loss = loss + penalty
            parts |= terms
            verdict = self._adversary.backward(step, images, output.reconstruction)

        self._engine.backward(loss)
        max_norm = math.inf if config.grad_clip is None else config.grad_clip
        grad_norm = clip_grad_norm_(self.tokenizer.parameters(), max_norm)
        statistics = usage_and_perplexity(output.token_grid, self.tokenizer.codebook_size)
        metrics = self._checked(
            {
                "loss": loss,
                **parts,
                "usage": statistics[0],
                "perplexity": statistics[1],
                "grad_norm": grad_norm,
                **verdict,
            }
        )
        metrics["learning_rate"] = float(self._scheduler.get_last_lr()[0])
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._adversary is not None:
            self._adversary.step()
        self._scheduler.step()
        self._ema.multi_avg_fn = get_ema_multi_avg_fn(config.averaging_decay(step))
        self._ema.update_parameters(self.tokenizer)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed trainer needs, as tensors and builtins."""
        state = {
            "tokenizer": self.tokenizer.state_dict(),
            "ema": self._ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }
        if self._adversary is not None:
            state["adversary"] = self._adversary.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of `state_dict`, made with equal configs."""
        self.tokenizer.load_state_dict(state["tokenizer"])
        self._ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        if self._adversary is not None:
            self._adversary.load_state_dict(state["adversary"])

    def _make_adversary(self) -> Adversary | None:
        config = self.config.adversarial
        if config is None:
            return None
        images = self.tokenizer.config
        if images.image_size < config.discriminator.min_image_size:
            raise ValueError(
                f"the discriminator needs images of {config.discriminator.min_image_size} pixels a "
                f"side, the tokenizer's have {images.image_size}: give it fewer num_layers than "
                f"{config.discriminator.num_layers}"
            )
        device = self.tokenizer.decoder.conv_out.weight.device
        return Adversary(config, images.in_channels, device, self._engine)

    def _checked(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """The scalars as numbers, in one transfer from the device, if the gradients are finite."""
        values = torch.stack([scalar.detach() for scalar in scalars.values()]).tolist()
        metrics = dict(zip(scalars, values, strict=True))
        for name, value in metrics.items():
            if name.endswith("grad_norm") and not math.isfinite(value):
                self._optimizer.zero_grad()
                raise FloatingPointError(
                    f"the {name.replace('_', ' ').replace('grad', 'gradient')} is {value} in step "
                    f"{self._scheduler.last_epoch}; look for images that are not finite, or lower "
                    "the learning rate"
                )
        return metrics
