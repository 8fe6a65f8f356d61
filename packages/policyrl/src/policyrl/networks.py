"""The published policy network, for any grid: features and timestep in, a few numbers out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Wavelengths of the sinusoidal time embedding reach from 2 pi to about this times 2 pi.
_MAX_PERIOD = 10000.0


@dataclass(frozen=True, kw_only=True)
class PolicyNetworkConfig:
    """Sizes of a `PolicyNetwork`; the defaults are the published ones (AdaNAT `libs/policy.py`).

    Attributes:
        feature_dim: channels C of the features.
        grid_size: (h, w) of the token grid; L = h w features in raster order.
        num_outputs: the number of action components for a policy, 1 for a value network.
        hidden_dim: width over the tokens and of the time conditioning.
        conv_channels: channels after the convolutions, which halve the grid.
        mlp_dims: widths of the hidden layers behind them.
        time_dim: size of the sinusoidal time embedding, even.
    """

    feature_dim: int
    grid_size: tuple[int, int]
    num_outputs: int
    hidden_dim: int = 512
    conv_channels: int = 128
    mlp_dims: tuple[int, ...] = (1024, 512)
    time_dim: int = 256

    def __post_init__(self) -> None:
        # A config read from JSON brings lists.
        object.__setattr__(self, "grid_size", tuple(self.grid_size))
        object.__setattr__(self, "mlp_dims", tuple(self.mlp_dims))
        for name in ("feature_dim", "num_outputs", "hidden_dim", "conv_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if len(self.grid_size) != 2 or min(self.grid_size) < 1:
            raise ValueError(f"grid_size is {self.grid_size}, must be two positive numbers")
        if not self.mlp_dims or min(self.mlp_dims) < 1:
            raise ValueError(f"mlp_dims is {self.mlp_dims}, must be one or more positive numbers")
        if self.time_dim < 2 or self.time_dim % 2:
            raise ValueError(f"time_dim is {self.time_dim}, must be even and at least 2")


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
    """Maps {"features" (B, L, C), "timestep" (B,)} to (B, num_outputs).

    Features are projected and normalised per token, a strided depthwise and a pointwise convolution
    shrink them, an MLP reads the flattened grid; the timestep modulates every normalisation. The
    output is zero at initialisation, so a policy starts exactly at its prior (arXiv 2409.00342).
    Layers not said to be zero keep torch's default initialisation.
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
        rows, columns = ((size + 1) // 2 for size in config.grid_size)
        widths = (config.conv_channels * rows * columns, *config.mlp_dims)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(AdaptiveLayerNorm(width, hidden) for width in config.mlp_dims)
        self.head = nn.Linear(config.mlp_dims[-1], config.num_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Map an observation of B rows to (B, num_outputs)."""
        features, timestep = observation["features"], observation["timestep"]
        height, width = self.config.grid_size
        expected = (height * width, self.config.feature_dim)
        if features.shape[1:] != expected:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, must be (B, *{expected}) "
                f"for a grid of {height}x{width}"
            )
        x = self.input_projection(features.to(self.head.weight.dtype))  # (B, L, H)
        condition = self.time_embedding(timestep)  # (B, H)
        x = self.token_norm(x, condition)
        x = x.transpose(1, 2).unflatten(2, (height, width))  # (B, H, h, w)
        x = F.gelu(self.depthwise(x))
        x = F.gelu(self.pointwise(x)).flatten(1)  # channel, row, column
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.gelu(norm(layer(x), condition))
        output: Tensor = self.head(x)
        return output
