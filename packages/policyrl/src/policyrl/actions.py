"""Action specs: named components over the steps of an episode, and the prior schedule.

A policy works on raw actions, any real numbers. Each component has a squashing into its valid range
and, at each timestep, a prior: the value that a raw action of zero stands for. The prior enters
inside the squashing, value = squash(raw + squash^-1(prior)), which is AdaNAT's hand-made schedule
as a residual (arXiv 2409.00342).

AdaGen smooths actions before the squashing, a_t = s a_(t-1) + (1 - s) a_t, and inverts the
smoothing on the prior so that the untrained policy keeps the schedule. Smoothing is linear, so the
two together are: smooth the raw actions alone, starting from 0, and add the prior afterwards. That
is what `ActionSpec.smooth` and `ActionSpec.activate` do. The smoothed raw action is part of the
decision process's state and is handed on by the caller; nothing here remembers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor, nn

from policyrl.components import ActionComponent

# The observation's key of the smoothed raw action of the step before, (B, A); zeros at first.
PREVIOUS_ACTION = "previous_action"


class ActionSpec(nn.Module):
    """The components of an action over an episode of T steps.

    A module without parameters, so that its tables follow the policy from device to device; they
    are configuration and no part of the state dict.

    Args:
        components: the A components, in the order of the raw action's columns.
        prior: (T, A) activated values that a raw action of zero gives, to the last bit; where they
            lie inside a component's dead zone, 0.
        active: (T, A) bool, default all True. An entry that is not active always gives its prior,
            and is left out of log-probability and entropy.
        smoothing: s of AdaGen's action smoothing, in [0, 1); 0: none, AdaGen takes 0.8.

    Raises:
        ValueError: on a wrong shape, a repeated name, a smoothing out of range, or an active prior
            that the component's squashing cannot reach or that is not finite.
    """

    prior: Tensor
    active: Tensor
    offset: Tensor

    def __init__(
        self,
        components: Sequence[ActionComponent],
        prior: Tensor,
        active: Tensor | None = None,
        *,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.components = tuple(components)
        self.smoothing = smoothing
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is {smoothing}, must lie in [0, 1)")
        if not self.components:
            raise ValueError("components is empty, an action needs at least one")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"component names are {self.names}, each must occur once")
        if prior.ndim != 2 or prior.shape[0] < 1 or prior.shape[1] != self.num_actions:
            raise ValueError(
                f"prior has shape {tuple(prior.shape)}, must be (num_steps, {self.num_actions}) "
                f"for the components {self.names}"
            )
        active = torch.ones_like(prior, dtype=torch.bool) if active is None else active
        if active.shape != prior.shape or active.dtype != torch.bool:
            raise ValueError(
                f"active has shape {tuple(active.shape)} and type {active.dtype}, "
                f"must be bool of shape {tuple(prior.shape)}"
            )
        if not prior.isfinite().all():
            raise ValueError(f"prior has values that are not finite: {prior.tolist()}")
        prior = prior.detach().float()
        offset = torch.stack([c.invert(prior[:, i]) for i, c in enumerate(self.components)], dim=1)
        unreachable = active & ~offset.isfinite()
        if unreachable.any():
            step, index = unreachable.nonzero()[0].tolist()
            component = self.components[index]
            raise ValueError(
                f"prior of {component.name!r} at step {step} is {prior[step, index].item():g}, but "
                f"it reaches only values inside {component.range} by {component.squash!r}; "
                "move it inside, make the entry inactive, or give the component a dead zone"
            )
        dead_zones = torch.tensor([component.dead_zone for component in self.components])
        off = active & (prior < dead_zones.to(prior))
        self.register_buffer("prior", torch.where(off, 0.0, prior), persistent=False)
        self.register_buffer("active", active.clone(), persistent=False)
        self.register_buffer("offset", torch.where(active, offset, 0.0).float(), persistent=False)

    @classmethod
    def without_prior(cls, components: Sequence[ActionComponent], num_steps: int) -> Self:
        """A spec around what each component makes of a raw 0, everything active."""
        neutral = torch.tensor([component.neutral for component in components])
        return cls(components, neutral.expand(num_steps, -1))

    @property
    def names(self) -> tuple[str, ...]:
        """The components' names, in column order."""
        return tuple(component.name for component in self.components)

    @property
    def num_steps(self) -> int:
        """The number of steps T."""
        return self.prior.shape[0]

    @property
    def num_actions(self) -> int:
        """The number of components A."""
        return len(self.components)

    def smooth(self, raw: Tensor, previous: Tensor) -> Tensor:
        """One step of action smoothing, s previous + (1 - s) raw: all (B, A).

        Args:
            raw: the raw actions of this step.
            previous: what this returned for the step before; zeros at the first step.
        """
        return self.smoothing * previous + (1 - self.smoothing) * raw

    def activate(self, raw: Tensor, timestep: Tensor | int) -> dict[str, Tensor]:
        """Turn raw (or smoothed) actions (B, A) at a timestep, (B,) or one number, into values.

        Returns:
            For each component its values, (B,) float32, inside the range of its squashing.
        """
        if raw.ndim != 2 or raw.shape[1] != self.num_actions:
            raise ValueError(f"raw has shape {tuple(raw.shape)}, must be (B, {self.num_actions})")
        self._check_timestep(timestep)
        shifted = raw.float() + self.offset[timestep]
        # A raw zero is the prior itself: the way through the squashing and back may round.
        moved = self.active[timestep] & (raw != 0)
        prior = self.prior[timestep].expand_as(shifted)
        return {
            component.name: torch.where(moved[:, i], component.activate(shifted[:, i]), prior[:, i])
            for i, component in enumerate(self.components)
        }

    def active_at(self, timestep: Tensor) -> Tensor:
        """Which components count at these timesteps: (B,) int64 -> (B, A) bool."""
        return self.active[timestep]

    def _check_timestep(self, timestep: Tensor | int) -> None:
        # Tensors are left to the indexing, which checks them where the device can without a sync.
        if isinstance(timestep, int) and not 0 <= timestep < self.num_steps:
            raise ValueError(f"timestep is {timestep}, must lie in [0, {self.num_steps})")

    def to_config(self) -> dict[str, Any]:
        """Builtins from which `from_config` makes an equal spec."""
        return {
            "components": [asdict(component) for component in self.components],
            "prior": self.prior.tolist(),
            "active": self.active.tolist(),
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_config`."""
        return cls(
            [ActionComponent(**component) for component in config["components"]],
            torch.tensor(config["prior"]),
            torch.tensor(config["active"]),
            smoothing=config.get("smoothing", 0.0),
        )
