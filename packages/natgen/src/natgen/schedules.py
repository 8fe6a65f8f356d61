"""Hand-made decoding schedules: the same four numbers for every sample.

Steps are t = 0 .. T-1. The last step's mask ratio and re-mask temperature are stored but have no
effect, since the image is that step's full draw.
"""

import math

import torch
from torch import Tensor

COMPONENTS = ("mask_ratio", "remask_temperature", "sampling_temperature", "guidance_scale")
"""The four decoding parameters, in the order of every (..., 4) tensor."""


class StaticSchedule:
    """A `DecodingPolicy` that looks at nothing but the timestep.

    Args:
        values: (T, 4) in the order of `COMPONENTS`; mask ratios in [0, 1], the others at least 0.
    """

    def __init__(self, values: Tensor) -> None:
        if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] != len(COMPONENTS):
            raise ValueError(f"values must be (T, {len(COMPONENTS)}), got {tuple(values.shape)}")
        # Rows as host numbers: a step then costs four fills on the device and no copy to it.
        self._rows: list[list[float]] = values.detach().float().cpu().tolist()
        for timestep, row in enumerate(self._rows):
            for name, value in zip(COMPONENTS, row, strict=True):
                highest = 1.0 if name == "mask_ratio" else math.inf
                if not (0 <= value <= highest and math.isfinite(value)):
                    raise ValueError(
                        f"{name} at step {timestep} is {value}; it must be finite and in "
                        f"[0, {highest}]"
                    )

    @property
    def num_steps(self) -> int:
        """Number of decoding steps T."""
        return len(self._rows)

    @property
    def values(self) -> Tensor:
        """(T, 4) float32, in the order of `COMPONENTS`."""
        return torch.tensor(self._rows)

    def __call__(self, features: Tensor, timestep: int) -> dict[str, Tensor]:
        """Features (B, L, D) -> one (B,) float32 tensor a component, on their device."""
        size = features.shape[0]
        return {
            name: features.new_full((size,), value, dtype=torch.float32)
            for name, value in zip(COMPONENTS, self._rows[timestep], strict=True)
        }

    def guidance_free(self, timestep: int) -> bool:
        """Whether this step's guidance is 0, so that the unconditional pass can be left out."""
        return self._rows[timestep][COMPONENTS.index("guidance_scale")] == 0

    def __repr__(self) -> str:
        return f"StaticSchedule({self._rows})"


def published(
    num_steps: int,
    *,
    remask_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    guidance_scale: float = 3.0,
) -> StaticSchedule:
    """The hand-made schedule of AdaNAT (its repository's configuration for ImageNet by default).

    With rho = (t + 1 - 0.001) / T: mask ratio cos(pi rho / 2), re-mask temperature falling linearly
    as 1 - rho, constant sampling temperature, guidance rising linearly as (t + 0.001) / T. Scales
    of 1, 1, 1 give the residual schedule of the published policy.
    """
    _check_steps(num_steps)
    rows = []
    for t in range(num_steps):
        rho = (t + 1 - 0.001) / num_steps
        rows.append(
            [
                math.cos(math.pi * rho / 2),
                remask_temperature * (1 - rho),
                sampling_temperature,
                guidance_scale * (t + 0.001) / num_steps,
            ]
        )
    return StaticSchedule(torch.tensor(rows))


def maskgit_cosine(
    num_steps: int,
    *,
    remask_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    guidance_scale: float = 0.0,
) -> StaticSchedule:
    """MaskGIT's schedule: with rho = (t + 1) / T, mask ratio cos(pi rho / 2).

    Its "choice temperature" falls linearly as 1 - rho; sampling temperature and guidance are
    constant (MaskGIT itself has no guidance).
    """
    _check_steps(num_steps)
    rows = []
    for t in range(num_steps):
        rho = (t + 1) / num_steps
        ratio = max(0.0, math.cos(math.pi * rho / 2))
        rows.append([ratio, remask_temperature * (1 - rho), sampling_temperature, guidance_scale])
    return StaticSchedule(torch.tensor(rows))


def constant(
    num_steps: int,
    *,
    mask_ratio: float,
    remask_temperature: float,
    sampling_temperature: float,
    guidance_scale: float,
) -> StaticSchedule:
    """The same four numbers at every step."""
    _check_steps(num_steps)
    row = [mask_ratio, remask_temperature, sampling_temperature, guidance_scale]
    return StaticSchedule(torch.tensor(row).expand(num_steps, -1))


def autonat_l8() -> StaticSchedule:
    """AutoNAT's searched strategy for its L model at 8 steps on ImageNet-256, as data."""
    columns = [
        [0.953, 0.880, 0.794, 0.746, 0.625, 0.407, 0.261, 0.0],
        [2.405, 2.478, 1.192, 0.769, 1.067, 0.935, 0.784, 0.0],
        [2.900, 1.867, 1.144, 1.380, 1.470, 1.376, 1.708, 0.713],
        [0.0, 0.0, 0.0, 0.915, 1.616, 1.195, 1.383, 1.227],
    ]
    return StaticSchedule(torch.tensor(columns).T)


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
