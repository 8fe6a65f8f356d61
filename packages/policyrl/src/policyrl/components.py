"""Action components: how a raw number becomes a valid value, and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

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
            still switch something off. 0 means none; only for a range that starts at 0.
        bounds: finite (low, high) of the values: "sigmoid" is stretched to it, the others are
            clamped to it. None: the squashing's own range.
    """

    name: str
    squash: Squash
    dead_zone: float = 0.0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if self.squash not in get_args(Squash):
            raise ValueError(f"squash is {self.squash!r}, must be one of {get_args(Squash)}")
        if self.bounds is not None:
            # A config read from JSON brings lists.
            object.__setattr__(self, "bounds", tuple(self.bounds))
            self._check_bounds(self.bounds)
        low, high = self.range
        if self.dead_zone != 0 and not (low == 0 < self.dead_zone < high):
            raise ValueError(
                f"dead_zone of {self.name!r} is {self.dead_zone}, must be 0 or lie inside a range "
                f"that starts at 0, and the range is ({low:g}, {high:g})"
            )

    def _check_bounds(self, bounds: tuple[float, float]) -> None:
        finite_and_rising = len(bounds) == 2 and -math.inf < bounds[0] < bounds[1] < math.inf
        if not finite_and_rising or (self.squash == "softplus" and bounds[0] < 0):
            lowest = "0 <= low" if self.squash == "softplus" else "low"
            raise ValueError(
                f"bounds of {self.name!r} are {bounds}, must be finite with {lowest} < high"
            )

    @property
    def range(self) -> tuple[float, float]:
        """Infimum and supremum of the values."""
        return _RANGE[self.squash] if self.bounds is None else self.bounds

    @property
    def neutral(self) -> float:
        """The value of a raw number of 0, without any prior."""
        return self.activate(torch.zeros(())).item()

    def activate(self, raw: Tensor) -> Tensor:
        """Squash a raw action of any shape (prior included); inside the dead zone exactly 0."""
        value = _SQUASH[self.squash](raw)
        if self.bounds is not None:
            low, high = self.bounds
            stretched = self.squash == "sigmoid"
            value = low + (high - low) * value if stretched else value.clamp(low, high)
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
        if self.bounds is not None:
            low, high = self.bounds
            if self.squash == "sigmoid":
                value = (value - low) / (high - low)
            else:
                value = torch.where((value >= low) & (value <= high), value, math.nan)
        return _INVERSE[self.squash](value)
