"""Actions: named components, how raw numbers become valid parameters, and the prior schedule.

A policy works on raw actions, any real numbers. Each component has a squashing into its valid range
and, at each timestep, a prior: the value that a raw action of zero stands for. The prior enters
inside the squashing, value = squash(raw + squash^-1(prior)), which is AdaNAT's hand-made schedule
as a residual (arXiv 2409.00342).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Squash = Literal["sigmoid", "softplus", "identity"]


def _identity(values: Tensor) -> Tensor:
    return values


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


_SQUASH: Mapping[Squash, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "identity": _identity,
}
_INVERSE: Mapping[Squash, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.logit,
    "softplus": _inverse_softplus,
    "identity": _identity,
}
_RANGE: Mapping[Squash, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "softplus": (0.0, math.inf),
    "identity": (-math.inf, math.inf),
}


@dataclass(frozen=True, kw_only=True)
class ActionComponent:
    """One number of an action.

    Attributes:
        name: key of the component in an activated action.
        squash: map from a raw action to a value: "sigmoid" into (0, 1), "softplus" into (0, inf),
            "identity" leaves it.
        dead_zone: values below it become exactly 0, so that a squashing that never reaches 0 can
            still switch something off. 0 means none; not for "identity".
    """

    name: str
    squash: Squash
    dead_zone: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if self.squash not in get_args(Squash):
            raise ValueError(f"squash is {self.squash!r}, must be one of {get_args(Squash)}")
        high = _RANGE[self.squash][1] if self.squash != "identity" else 0.0
        if self.dead_zone != 0 and not 0 < self.dead_zone < high:
            raise ValueError(
                f"dead_zone of {self.name!r} is {self.dead_zone}, must be 0 or lie inside the "
                f'range of {self.squash!r} ("identity" takes none)'
            )

    def activate(self, raw: Tensor) -> Tensor:
        """Squash a raw action of any shape (prior included); inside the dead zone exactly 0."""
        value = _SQUASH[self.squash](raw)
        return torch.where(value < self.dead_zone, 0.0, value) if self.dead_zone else value

    def invert(self, value: Tensor) -> Tensor:
        """The raw number (float64) behind a value; outside the range nan or infinite.

        Every value inside the dead zone counts as half of it: all of them act alike, and from there
        exploration can still find the way out.
        """
        value = value.double()
        if self.dead_zone:
            inside = (value >= 0) & (value < self.dead_zone)
            value = torch.where(inside, self.dead_zone / 2, value)
        return _INVERSE[self.squash](value)


class ActionSpec(nn.Module):
    """The components of an action over an episode of T steps.

    A module without parameters, so that its tables follow the policy from device to device; they
    are configuration and no part of the state dict.

    Args:
        components: the A components, in the order of the raw action's columns.
        prior: (T, A) activated values that a raw action of zero gives.
        active: (T, A) bool, default all True. An entry that is not active always gives its prior,
            and is left out of log-probability and entropy.

    Raises:
        ValueError: on a wrong shape, a repeated name, or an active prior that the component's
            squashing cannot reach or that is not finite.
    """

    prior: Tensor
    active: Tensor
    offset: Tensor

    def __init__(
        self,
        components: Sequence[ActionComponent],
        prior: Tensor,
        active: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.components = tuple(components)
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
                f"{component.squash!r} reaches only values inside {_RANGE[component.squash]}; "
                "move it inside, make the entry inactive, or give the component a dead zone"
            )
        self.register_buffer("prior", prior.clone(), persistent=False)
        self.register_buffer("active", active.clone(), persistent=False)
        self.register_buffer("offset", torch.where(active, offset, 0.0).float(), persistent=False)

    @classmethod
    def without_prior(cls, components: Sequence[ActionComponent], num_steps: int) -> Self:
        """A spec whose values are squash(raw) alone, everything active."""
        neutral = torch.stack(
            [_SQUASH[c.squash](torch.zeros(num_steps)) for c in components], dim=1
        )
        return cls(components, neutral)

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

    def activate(self, raw: Tensor, timestep: Tensor | int) -> dict[str, Tensor]:
        """Turn raw actions (B, A) at a timestep, (B,) int64 or one number, into values.

        Returns:
            For each component its values, (B,) float32, inside the range of its squashing.
        """
        if raw.ndim != 2 or raw.shape[1] != self.num_actions:
            raise ValueError(f"raw has shape {tuple(raw.shape)}, must be (B, {self.num_actions})")
        self._check_timestep(timestep)
        shifted = raw.float() + self.offset[timestep]
        active = self.active[timestep].expand_as(shifted)
        prior = self.prior[timestep].expand_as(shifted)
        return {
            component.name: torch.where(
                active[:, i], component.activate(shifted[:, i]), prior[:, i]
            )
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
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_config`."""
        return cls(
            [ActionComponent(**component) for component in config["components"]],
            torch.tensor(config["prior"]),
            torch.tensor(config["active"]),
        )
