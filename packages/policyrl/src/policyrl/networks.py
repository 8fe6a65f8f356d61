"""The published policy network, for any grid: features and timestep in, a few numbers out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policyrl.actions import PREVIOUS_ACTION

# Wavelengths of the sinusoidal time embedding reach from 2 pi to about this times 2 pi.
_MAX_PERIOD = 10000.0


@dataclass(frozen=True, kw_only=True)
class PolicyNetworkConfig:
    """Sizes of a `PolicyNetwork`; the defaults are the published ones (AdaNAT `libs/policy.py`).

    Attributes:
        feature_dim: channels C of the features.
        grid_size: (h, w) of the token grid; L = h w features in raster order. None: grids of any
            size, given as maps (B, C, h, w), with a `pooled_size`.
        num_outputs: the number of action components for a policy, 1 for a value network.
        hidden_dim: width over the tokens and of the time conditioning.
        conv_channels: channels after the convolutions, which halve the grid.
        mlp_dims: widths of the hidden layers behind them.
        time_dim: size of the sinusoidal time embedding, even.
        pooled_size: (h, w) to which the convolved grid is averaged before the hidden layers, so
            that their size does not depend on the grid's; None: not at all, as published.
        num_previous: numbers of the observation's "previous_action" to condition on, next to the
            timestep; 0: none, as published.
    """

    feature_dim: int
    grid_size: tuple[int, int] | None
    num_outputs: int
    hidden_dim: int = 512
    conv_channels: int = 128
    mlp_dims: tuple[int, ...] = (1024, 512)
    time_dim: int = 256
    pooled_size: tuple[int, int] | None = None
    num_previous: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_dims", tuple(self.mlp_dims))
        for name in ("grid_size", "pooled_size"):
            size = getattr(self, name)
            if size is None:
                continue
            object.__setattr__(self, name, tuple(size))  # a config read from JSON brings lists
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"{name} is {tuple(size)}, must be two positive numbers")
        if self.num_previous < 0:
            raise ValueError(f"num_previous is {self.num_previous}, must be at least 0")
        for name in ("feature_dim", "num_outputs", "hidden_dim", "conv_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.mlp_dims or min(self.mlp_dims) < 1:
            raise ValueError(f"mlp_dims is {self.mlp_dims}, must be one or more positive numbers")
        if self.time_dim < 2 or self.time_dim % 2:
            raise ValueError(f"time_dim is {self.time_dim}, must be even and at least 2")
        _ = self.hidden_grid  # raises where there is none

    @property
    def hidden_grid(self) -> tuple[int, int]:
        """(h, w) of what the hidden layers read."""
        if self.pooled_size is not None:
            return self.pooled_size
        if self.grid_size is None:
            raise ValueError("grid_size is None, which needs a pooled_size")
        height, width = self.grid_size
        return (height + 1) // 2, (width + 1) // 2


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep, cosines first, through a small MLP: (B,) -> (B, hidden_dim)."""

    frequencies: Tensor

    def __init__(self, time_dim: int, hidden_dim: int) -> None:
        super().__init__()
        half = time_dim // 2
        exponents = torch.arange(half, dtype=torch.float32) / half
        frequencies = torch.exp(-math.log(_MAX_PERIOD) * exponents)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(time_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )

    def forward(self, timestep: Tensor) -> Tensor:
        """Embed integer timesteps, (B,) -> (B, hidden_dim)."""
        angles = timestep[:, None].to(self.frequencies) * self.frequencies
        embedded: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return embedded


class AdaptiveLayerNorm(nn.Module):
    """LayerNorm whose shift and scale come from a condition; the identity modulation at first."""

    def __init__(self, dim: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(condition_dim, 2 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise x (B, ..., dim) and modulate it by condition (B, condition_dim)."""
        modulation = self.modulation(F.silu(condition))
        broadcast = modulation.reshape(len(x), *(1,) * (x.ndim - 2), -1)
        shift, scale = broadcast.chunk(2, dim=-1)
        modulated: Tensor = self.norm(x) * (1 + scale) + shift
        return modulated


class PolicyNetwork(nn.Module):
    """Maps {"features", "timestep" (B,)} to (B, num_outputs).

    Features are tokens (B, L, C) of a grid of `grid_size`, or a map (B, C, h, w) of that size, or
    of any size if `grid_size` is None. They are projected and normalised per token, a strided
    depthwise and a pointwise convolution shrink them, an MLP reads the flattened grid; the timestep
    modulates every normalisation. The output is zero at initialisation, so a policy starts exactly
    at its prior (arXiv 2409.00342). Layers not said to be zero keep torch's default initialisation.
    The last layer runs in the weights' precision under autocast, too.
    """

    def __init__(self, config: PolicyNetworkConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_dim
        same_width = config.feature_dim == hidden
        self.input_projection = (
            nn.Identity() if same_width else nn.Linear(config.feature_dim, hidden)
        )
        self.time_embedding = TimestepEmbedding(config.time_dim, hidden)
        self.token_norm = AdaptiveLayerNorm(hidden, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1, groups=hidden)
        self.pointwise = nn.Conv2d(hidden, config.conv_channels, 1)
        rows, columns = config.hidden_grid
        widths = (config.conv_channels * rows * columns, *config.mlp_dims)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(AdaptiveLayerNorm(width, hidden) for width in config.mlp_dims)
        self.head = nn.Linear(config.mlp_dims[-1], config.num_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.previous_embedding = (
            nn.Linear(config.num_previous, hidden) if config.num_previous else None
        )

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Map an observation of B rows to (B, num_outputs)."""
        tokens, (height, width) = self._tokens(observation["features"])
        x = self.input_projection(tokens.to(self.head.weight.dtype))  # (B, L, H)
        condition = self.time_embedding(observation["timestep"])  # (B, H)
        if self.previous_embedding is not None:
            previous = observation[PREVIOUS_ACTION].to(self.head.weight.dtype)
            condition = condition + self.previous_embedding(previous)
        x = self.token_norm(x, condition)
        x = x.transpose(1, 2).unflatten(2, (height, width))  # (B, H, h, w)
        x = F.gelu(self.depthwise(x))
        x = F.gelu(self.pointwise(x))
        if self.config.pooled_size is not None:
            x = F.adaptive_avg_pool2d(x, self.config.pooled_size)
        x = x.flatten(1)  # channel, row, column
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.gelu(norm(layer(x), condition))
        # The eight bits of bfloat16 would set a mean of 0.6 in steps of 0.004, and ratios with it.
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            output: Tensor = self.head(x.to(self.head.weight.dtype))
        return output

    def _tokens(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The features as (B, L, C) in raster order, and the size of their grid."""
        grid, channels = self.config.grid_size, self.config.feature_dim
        if features.ndim == 4 and features.shape[1] == channels:
            height, width = features.shape[2:]
            if grid in (None, (height, width)):
                return features.flatten(2).transpose(1, 2), (height, width)
        elif grid is not None and features.shape[1:] == (math.prod(grid), channels):
            return features, grid
        size = "any size" if grid is None else f"{grid[0]}x{grid[1]}"
        tokens = "" if grid is None else f"(B, {math.prod(grid)}, {channels}) or "
        raise ValueError(
            f"features have shape {tuple(features.shape)}, must be {tokens}(B, {channels}, h, w) "
            f"for a grid of {size}"
        )
