"""Hand-made decoding schedules: the same four numbers for every sample.

Steps are t = 0 .. T-1. The last step's mask ratio and re-mask temperature are stored but have no
effect, since the image is that step's full draw.
"""

import math
from typing import Literal, get_args

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


MaskShape = Literal["cosine", "linear", "square", "cubic", "sqrt", "exp", "log", "arccos"]


def maskgit(
    num_steps: int,
    *,
    shape: MaskShape = "cosine",
    num_tokens: int | None = None,
    remask_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    guidance_scale: float = 0.0,
) -> StaticSchedule:
    """MaskGIT's schedules (arXiv 2202.04200, sec. 3.3 and its published mask schedule).

    With rho = (t + 1) / T the mask ratio is cos(pi rho / 2) for "cosine", 1 - rho for "linear",
    1 - rho^2, rho^3 or rho^(1/2) for "square", "cubic" and "sqrt", and with N tokens
    1 - N^(rho - 1) for "exp" and -log(rho) / log(N) for "log". "arccos", 2 acos(rho) / pi, is that
    of the Halton sampler (arXiv 2503.17076; see `halton_order`).

    The "choice temperature" falls linearly as 1 - rho; sampling temperature and guidance are
    constant (MaskGIT itself has no guidance).

    Args:
        num_steps: T.
        shape: of the mask ratio.
        num_tokens: N, at least 2, the tokens that are masked at the start; for "exp" and "log".
        remask_temperature: before the first step.
        sampling_temperature: at all steps.
        guidance_scale: at all steps.

    Raises:
        ValueError: an unknown shape, or no ``num_tokens`` where they are needed.
    """
    _check_steps(num_steps)
    rows = []
    for t in range(num_steps):
        rho = (t + 1) / num_steps
        ratio = min(1.0, max(0.0, _mask_ratio(shape, rho, num_tokens)))
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


def _mask_ratio(shape: MaskShape, rho: float, num_tokens: int | None) -> float:
    exponents = {"linear": 1.0, "square": 2.0, "cubic": 3.0, "sqrt": 0.5}
    if shape in exponents:
        return 1 - math.pow(rho, exponents[shape])
    if shape == "cosine":
        return math.cos(math.pi * rho / 2)
    if shape == "arccos":
        return math.acos(rho) * 2 / math.pi
    if shape not in ("exp", "log"):
        raise ValueError(f"shape must be one of {get_args(MaskShape)}, got {shape!r}")
    if num_tokens is None or num_tokens < 2:
        raise ValueError(f"shape {shape!r} needs num_tokens of at least 2, got {num_tokens}")
    if shape == "exp":
        return 1 - math.pow(num_tokens, rho - 1)
    return -math.log(rho) / math.log(num_tokens)


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
