"""Masked-token training of a NAT, by default after AutoNAT's recipe."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import PARAM_LIST, AveragedModel

from natgen.engine import LocalEngine
from natgen.losses import masked_scores, score_metrics
from natgen.masking import BetaMask, MaskDistribution, random_mask
from natgen.protocols import Engine
from natgen.transformer import NAT

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})  # whose AdamW has one kernel for all


@dataclass(frozen=True, kw_only=True)
class NATTrainingConfig:
    """Training settings; the defaults are AutoNAT's published ones.

    Attributes:
        learning_rate: AdamW's peak learning rate.
        betas: AdamW's.
        weight_decay: AdamW's, on all parameters, as published.
        warmup_steps: linear warm-up from 0.
        total_steps: end of the cosine; not used by the constant schedule.
        lr_schedule: after the warm-up, "constant" or "cosine" down to 0 at ``total_steps``.
        mask_distribution: from which each sample's mask ratio is drawn.
        label_smoothing: of the cross-entropy.
        condition_dropout: probability of the null condition, for guidance.
        ema_decay: highest decay of the averaged weights; see `averaging_decay`.
        grad_clip: largest gradient norm, or None.
        accumulation_steps: parts into which an update's batch is split, one after the other through
            the network. The gradient is that of the whole batch, up to rounding and dropout.
        activation_checkpointing: recompute each block's activations in the backward pass: less
            memory for about a third more computation.
        mask_ratio_bins: equal parts of (0, 1] by which loss and accuracy are also reported.
    """

    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.99, 0.99)
    weight_decay: float = 0.03
    warmup_steps: int = 5000
    total_steps: int = 500_000
    lr_schedule: Literal["constant", "cosine"] = "constant"
    mask_distribution: MaskDistribution = field(default_factory=BetaMask)
    label_smoothing: float = 0.1
    condition_dropout: float = 0.15
    ema_decay: float = 0.9999
    grad_clip: float | None = None
    accumulation_steps: int = 1
    activation_checkpointing: bool = False
    mask_ratio_bins: int = 5

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.warmup_steps <= self.total_steps or self.total_steps < 1:
            raise ValueError(
                "need 0 <= warmup_steps <= total_steps and total_steps >= 1, "
                f"got {self.warmup_steps} and {self.total_steps}"
            )
        if self.lr_schedule not in ("constant", "cosine"):
            raise ValueError(
                f"lr_schedule must be 'constant' or 'cosine', got {self.lr_schedule!r}"
            )
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout must be in [0, 1], got {self.condition_dropout}")
        for name in ("accumulation_steps", "mask_ratio_bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip must be above 0 or None, got {self.grad_clip}")

    def lr_factor(self, step: int) -> float:
        """Learning rate of update ``step`` (counted from 0), as a fraction of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return 1.0
        span = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / span)
        return 0.5 * (1 + math.cos(math.pi * progress))

    def averaging_decay(self, step: int) -> float:
        """Decay of the averaged weights in update ``step``, counted from 0.

        It rises to ``ema_decay`` as (1 + step) / (10 + step), so that the average of a short
        training does not keep the random weights of its beginning.
        """
        return min(self.ema_decay, (1 + step) / (10 + step))


class NATTrainer:
    """One optimizer step at a time, with an exponential moving average of the weights.

    Masks and dropped conditions come from a generator of the trainer's own, which is part of its
    state; the model's dropout uses torch's global generator, which the caller saves. With both
    restored, a resumed training continues bit for bit on the CPU.

    Several processes each have a trainer with the same weights, config and seed, and an engine that
    joins them; each steps on its own rows of the batch, in the order of the processes. Masks and
    dropped conditions are those of the whole batch, and every masked position weighs the same, so
    that they take the steps of one process (apart from the model's dropout).

    Tokens and labels on the CPU are checked against the model's sizes. On a GPU they are not, since
    reading them would wait for the device: check them before they go there.
    """

    def __init__(
        self,
        model: NAT,
        config: NATTrainingConfig,
        *,
        seed: int,
        engine: Engine | None = None,
    ) -> None:
        self.model = model
        model.checkpoint_activations = config.activation_checkpointing
        self.config = config
        self.engine: Engine = engine if engine is not None else LocalEngine()
        # On the CPU, so that a seed means the same masks on any device.
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=next(model.parameters()).device.type in _FUSED_DEVICES,
        )
        self.scheduler = LambdaLR(self.optimizer, config.lr_factor)
        self._ema = AveragedModel(model, multi_avg_fn=self._average)
        self._ema.eval()
        self.num_updates = 0

    @property
    def ema_model(self) -> NAT:
        """The averaged model, in evaluation mode; after the first update, that update's weights."""
        return cast(NAT, self._ema.module)

    def step(self, tokens: Tensor, condition: Tensor) -> dict[str, float]:
        """One update.

        Args:
            tokens: (B, L) or (B, h, w) int64 codes in [0, V); of several processes, this one's
                rows, equally many in each.
            condition: labels (B,) int64 or text features (B, N, C).

        Returns:
            "loss" (with label smoothing), "accuracy" and "mask_ratio" over the batch, "grad_norm"
            before clipping, "lr" of this update; and loss and accuracy by mask ratio, such as
            "loss_mask_60_80" over the samples with more than 60 and at most 80 % masked, where
            there are any.

        Raises:
            ValueError: text features of a wrong shape; or, on the CPU, tokens or labels that are
                out of range. The null class is no label to train on: ``condition_dropout`` brings
                it in.
            FloatingPointError: the gradient norm is not finite; no weight is changed.
        """
        self._check_range(tokens, condition)
        self.model.train()
        tokens = tokens.flatten(1)
        masked = self._own_rows(self._masks(tokens, self.generator, self.engine.num_processes))
        condition = self._drop_condition(condition)
        self.optimizer.zero_grad(set_to_none=True)
        # Processes average their gradients: what counts is the mean number over them.
        num_masked = self.engine.gather(masked.sum()[None]).float().mean()
        parts = []
        smoothing = self.config.label_smoothing
        for scores in self._scores(self.model, tokens, masked, condition, smoothing):
            self.engine.backward(scores[:, 0].sum() / num_masked)
            parts.append(scores.detach())
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.grad_clip or math.inf
        )
        if hasattr(grad_norm, "full_tensor"):  # a DTensor: weights sharded over the processes
            grad_norm = grad_norm.full_tensor()
        metrics = score_metrics(
            self.engine.gather(torch.cat(parts)),
            tokens.shape[1],
            self.config.mask_ratio_bins,
            grad_norm=grad_norm,
        )
        metrics["lr"] = float(self.scheduler.get_last_lr()[0])
        if not math.isfinite(metrics["grad_norm"]):
            raise FloatingPointError(
                f"the gradient norm is {metrics['grad_norm']} in update {self.num_updates}; "
                "lower the learning rate or clip the gradients"
            )
        self.optimizer.step()
        self.scheduler.step()
        self._ema.update_parameters(self.model)
        self.num_updates += 1
        return metrics

    @torch.no_grad()
    def evaluate_loss(
        self, tokens: Tensor, condition: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """Loss and accuracy of the averaged model, without smoothing or dropped conditions.

        Args:
            tokens: (B, L) or (B, h, w) int64 codes in [0, V).
            condition: labels (B,) int64 or text features (B, N, C).
            generator: on the CPU; equal states give equal masks.

        Returns:
            "loss", "accuracy" and "mask_ratio", also by mask ratio, as of `step`.

        Raises:
            ValueError: as `step`.
        """
        self._check_range(tokens, condition)
        tokens = tokens.flatten(1)
        masked = self._masks(tokens, generator)
        parts = self._scores(self.ema_model, tokens, masked, condition, label_smoothing=0.0)
        return score_metrics(torch.cat(list(parts)), tokens.shape[1], self.config.mask_ratio_bins)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and builtins only: `torch.load(weights_only=True)` reads it."""
        return {
            "model": self.model.state_dict(),
            "ema": self._ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.model.load_state_dict(state["model"])
        self._ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())
        self.num_updates = state["num_updates"]

    def _average(
        self, averaged: PARAM_LIST, current: PARAM_LIST, _num_averaged: Tensor | int
    ) -> None:
        # The trainer's own count: reading the one that comes along would wait for the device.
        decay = self.config.averaging_decay(self.num_updates)
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _scores(
        self,
        model: NAT,
        tokens: Tensor,
        masked: Tensor,
        condition: Tensor,
        label_smoothing: float,
    ) -> Iterator[Tensor]:
        """(n, 3) of each part, so that its graph can go before the next one is made."""
        inputs = tokens.masked_fill(masked, model.mask_token_id)
        for part in zip(
            *(x.chunk(self.config.accumulation_steps) for x in (inputs, condition, tokens, masked)),
            strict=True,
        ):
            part_inputs, part_condition, part_tokens, part_masked = part
            with self.engine.autocast():
                logits = model(part_inputs, part_condition).logits
            yield masked_scores(logits, part_tokens, part_masked, label_smoothing)

    def _check_range(self, tokens: Tensor, condition: Tensor) -> None:
        config = self.model.config
        if config.num_classes is None:
            self.model.check_condition(condition)
        limits = [("token", tokens, config.codebook_size)]
        if config.num_classes is not None:  # the null class lies one past the last label
            limits.append(("label", condition, config.num_classes))
        for name, values, limit in limits:
            if values.device.type != "cpu" or not values.numel():
                continue
            low, high = (int(value) for value in values.aminmax())
            if low < 0 or high >= limit:
                wrong = low if low < 0 else high
                raise ValueError(
                    f"{name} {wrong} is out of range: {name}s to train on lie in [0, {limit - 1}]"
                )

    def _own_rows(self, drawn: Tensor) -> Tensor:
        """This process's rows of what was drawn for the whole batch."""
        return drawn.chunk(self.engine.num_processes)[self.engine.process_index]

    def _masks(self, tokens: Tensor, generator: torch.Generator, num_processes: int = 1) -> Tensor:
        """Masks (num_processes * B, L) for tokens (B, L)."""
        batch_size, length = tokens.shape
        ratio = self.config.mask_distribution.sample(num_processes * batch_size, generator)
        return random_mask(ratio, length, generator, tokens.device)

    def _drop_condition(self, condition: Tensor) -> Tensor:
        """Replace each sample's condition by the null one with the configured probability."""
        size = len(condition)
        chances = torch.rand(self.engine.num_processes * size, generator=self.generator)
        dropped = self._own_rows(chances) < self.config.condition_dropout
        dropped = dropped.to(condition.device).view(size, *[1] * (condition.ndim - 1))
        return torch.where(dropped, self.model.null_condition(size), condition)
