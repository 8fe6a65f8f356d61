"""The adversarial part of a tokenizer's training, after VQGAN (arXiv 2012.09841, sec. 3.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from vqtok.discriminator import PatchDiscriminator, PatchDiscriminatorConfig, hinge_loss
from vqtok.protocols import Engine


@dataclass(frozen=True, kw_only=True)
class AdversarialTrainingConfig:
    """How a patch discriminator takes part in training a tokenizer.

    Attributes:
        weight: factor on the adversarial loss, beside the adaptive weight; 0.8 as published for
            ImageNet.
        start_step: first step in which the adversarial loss counts for the tokenizer. Start it when
            the reconstructions are good but blurred.
        discriminator_start_step: first step in which the discriminator learns; None is
            ``start_step``. An earlier one spares the tokenizer a judge that knows nothing.
        max_adaptive_weight: bound of the adaptive weight, which grows without limit where the
            discriminator's gradient vanishes.
        learning_rate: of the discriminator's AdamW, constant.
        betas: of that AdamW.
        grad_clip: largest norm of the discriminator's gradient, None for no clipping.
        discriminator: its sizes.

    Raises:
        ValueError: if a value is out of range or two values do not fit each other.
    """

    weight: float = 0.8
    start_step: int = 0
    discriminator_start_step: int | None = None
    max_adaptive_weight: float = 1e4
    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.9)
    grad_clip: float | None = 1.0
    discriminator: PatchDiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)

    def __post_init__(self) -> None:
        for name in ("weight", "max_adaptive_weight", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.start_step < 0:
            raise ValueError(f"start_step must not be negative, got {self.start_step}")
        if not 0 <= self.first_update <= self.start_step:
            raise ValueError(
                f"discriminator_start_step must be in [0, start_step = {self.start_step}], "
                f"got {self.discriminator_start_step}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip must be positive or None, got {self.grad_clip}")

    @property
    def first_update(self) -> int:
        """First step in which the discriminator learns."""
        return (
            self.start_step
            if self.discriminator_start_step is None
            else self.discriminator_start_step
        )


class Adversary:
    """A patch discriminator, its optimizer and what it asks of the tokenizer.

    Args:
        config: how it takes part.
        in_channels: image channels.
        device: where it lives.
        engine: precision and backward pass.
    """

    def __init__(
        self,
        config: AdversarialTrainingConfig,
        in_channels: int,
        device: torch.device,
        engine: Engine,
    ) -> None:
        self.config = config
        self.discriminator = PatchDiscriminator(config.discriminator, in_channels).to(device)
        self._engine = engine
        self._optimizer = AdamW(
            self.discriminator.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=0.0,
            fused=True,
        )

    def penalty(
        self, step: int, fidelity: Tensor, reconstruction: Tensor, last_layer: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the tokenizer's loss gains from the discriminator's verdict.

        Args:
            step: of the training, counted from 0.
            fidelity: scalar loss of the reconstruction without the verdict.
            reconstruction: (B, C, H, W), not clamped.
            last_layer: the weight that makes the reconstruction, at which gradients are compared.

        Returns:
            The scalar to add, and its parts: ``adversarial``, minus the mean logit, and
            ``adaptive_weight``. Before ``start_step`` 0 without parts.
        """
        if step < self.config.start_step:
            return fidelity.new_zeros(()), {}
        self.discriminator.requires_grad_(False)
        with self._engine.autocast():
            logits: Tensor = self.discriminator(reconstruction)
        self.discriminator.requires_grad_(True)
        adversarial = -logits.float().mean()
        adaptive = adaptive_weight(
            fidelity, adversarial, last_layer, self.config.max_adaptive_weight
        )
        penalty = self.config.weight * adaptive * adversarial
        return penalty, {"adversarial": adversarial, "adaptive_weight": adaptive}

    def backward(self, step: int, images: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Computes the discriminator's gradients, which the method `step` applies.

        Args:
            step: of the training, counted from 0.
            images: real ones, (B, C, H, W) in [0, 1].
            reconstruction: of the same shape; no gradient reaches them.

        Returns:
            ``discriminator_loss``; ``real_logits`` and ``fake_logits``, their means; and
            ``discriminator_grad_norm`` before clipping, all scalars. Nothing before the
            discriminator's first step.
        """
        if step < self.config.first_update:
            return {}
        with self._engine.autocast():
            logits: Tensor = self.discriminator(torch.cat([images, reconstruction.detach()]))
        real, fake = logits.float().chunk(2)
        loss = hinge_loss(real, fake)
        self._optimizer.zero_grad()
        self._engine.backward(loss)
        max_norm = math.inf if self.config.grad_clip is None else self.config.grad_clip
        return {
            "discriminator_loss": loss,
            "real_logits": real.mean(),
            "fake_logits": fake.mean(),
            "discriminator_grad_norm": clip_grad_norm_(self.discriminator.parameters(), max_norm),
        }

    def step(self) -> None:
        """Applies the gradients of the last `backward`, if there are any."""
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The discriminator and its optimizer."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of `state_dict`."""
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])


def adaptive_weight(
    fidelity: Tensor, adversarial: Tensor, last_layer: Tensor, limit: float
) -> Tensor:
    """The factor that makes both losses pull equally at the decoder's last layer.

    This is the ratio of the norms of their gradients (arXiv 2012.09841, eq. 7).

    Args:
        fidelity: scalar loss of reconstruction and perception.
        adversarial: scalar loss of the discriminator's verdict.
        last_layer: the weight at which the gradients are taken.
        limit: largest value.

    Returns:
        The scalar weight in [0, limit], without a gradient.
    """
    (towards_image,) = torch.autograd.grad(fidelity, last_layer, retain_graph=True)
    (towards_real,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio: Tensor = towards_image.norm() / (towards_real.norm() + 1e-6)
    return ratio.clamp(max=limit)
