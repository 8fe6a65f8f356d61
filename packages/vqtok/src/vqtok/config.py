"""The configuration of a tokenizer and size presets."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

QuantizerName = Literal["vq", "fsq", "lfq"]
Architecture = Literal["vqgan", "llamagen"]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of a tokenizer for square images.

    The encoder has one level per entry of ``channel_multipliers``; between level ``i`` and level
    ``i + 1`` it averages ``downsample_factors[i]`` squared pixels into one, and the decoder mirrors
    it. An image of ``image_size`` becomes a grid of ``image_size / prod(downsample_factors)`` codes
    a side.

    Attributes:
        image_size: side of the input images, in pixels.
        base_channels: channels at full resolution.
        channel_multipliers: channels of each level, in units of ``base_channels``.
        downsample_factors: pooling factor after each level but the last.
        num_res_blocks: residual blocks per level, the same in encoder and decoder.
        codebook_size: number of codes.
        codebook_dim: length of a code vector, equal to the channels of the latent.
        quantizer: "vq" for codes that follow the latents; "fsq" for rounding each channel to
            ``fsq_levels`` (finite scalar quantisation, arXiv 2309.15505); "lfq" for the sign of
            each channel (lookup-free, arXiv 2310.05737).
        fsq_levels: for "fsq", the number of levels of each channel, at least 3; ``codebook_size``
            is their product, ``codebook_dim`` their number.
        normalize_codes: for "vq", compare latents and codes of unit length.
        norm_groups: groups of every group norm.
        commitment_weight: weight of the commitment term within the training loss; "fsq" has none.
        entropy_weight: for "lfq", weight of its entropy term within the training loss.
        codebook_decay: for "vq", decay of the moving averages from which the codes are computed.
        dead_code_threshold: for "vq", a code whose moving average of hits per batch (over all
            processes) falls below this is replaced by a latent of the current batch; 0 turns that
            off. Keep it well below ``tokens per batch / codebook_size``, the hits of an evenly used
            code.
        in_channels: image channels.
        architecture: "vqgan", the published VQGAN in the MaskGIT layout, or "llamagen", LlamaGen's
            with attention at the coarsest level.
        latent_channels: for "llamagen", channels that a 1x1 convolution maps to ``codebook_dim`` in
            front of the codebook and another maps back behind it; None for ``codebook_dim``.

    Raises:
        ValueError: if a value is out of range or two values do not fit each other.
    """

    image_size: int
    base_channels: int = 32
    channel_multipliers: tuple[int, ...] = (1, 2)
    downsample_factors: tuple[int, ...] = (2,)
    num_res_blocks: int = 1
    codebook_size: int
    codebook_dim: int
    norm_groups: int = 32
    quantizer: QuantizerName = "vq"
    fsq_levels: tuple[int, ...] = ()
    normalize_codes: bool = False
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1
    codebook_decay: float = 0.99
    dead_code_threshold: float = 2.0
    in_channels: int = 3
    architecture: Architecture = "vqgan"
    latent_channels: int | None = None

    def __post_init__(self) -> None:
        # A config read back from JSON carries lists.
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        object.__setattr__(self, "downsample_factors", tuple(self.downsample_factors))
        object.__setattr__(self, "fsq_levels", tuple(self.fsq_levels))
        for name in (
            "image_size",
            "base_channels",
            "num_res_blocks",
            "codebook_size",
            "codebook_dim",
            "norm_groups",
            "in_channels",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError(
                "channel_multipliers must be one or more positive integers, "
                f"got {self.channel_multipliers}"
            )
        if len(self.downsample_factors) != len(self.channel_multipliers) - 1:
            raise ValueError(
                f"downsample_factors needs one entry fewer than channel_multipliers, "
                f"got {self.downsample_factors} for {self.channel_multipliers}"
            )
        if any(factor < 2 for factor in self.downsample_factors):
            raise ValueError(
                f"downsample_factors must be at least 2 each, got {self.downsample_factors}"
            )
        if self.image_size % self.downsampling:
            raise ValueError(
                f"image_size must be divisible by {self.downsampling}, the product of "
                f"downsample_factors {self.downsample_factors}, got {self.image_size}"
            )
        for channels in self.level_channels:
            if channels % self.norm_groups:
                raise ValueError(
                    f"every level's channels {self.level_channels} must be divisible by "
                    f"norm_groups, got {self.norm_groups}"
                )
        for name in ("commitment_weight", "entropy_weight", "dead_code_threshold"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"codebook_decay must be in [0, 1), got {self.codebook_decay}")
        self._check_quantizer()
        self._check_architecture()

    def _check_quantizer(self) -> None:
        if self.quantizer not in get_args(QuantizerName):
            raise ValueError(
                f"quantizer must be one of {get_args(QuantizerName)}, got {self.quantizer!r}"
            )
        if self.normalize_codes and self.quantizer != "vq":
            raise ValueError(f"normalize_codes is for quantizer 'vq', got {self.quantizer!r}")
        if bool(self.fsq_levels) != (self.quantizer == "fsq"):
            raise ValueError(
                "fsq_levels are needed exactly for quantizer 'fsq', "
                f"got {self.fsq_levels} for {self.quantizer!r}"
            )
        if self.quantizer == "fsq":
            if min(self.fsq_levels) < 3:
                raise ValueError(f"fsq_levels must be at least 3 each, got {self.fsq_levels}")
            self._check_code_sizes(math.prod(self.fsq_levels), len(self.fsq_levels))
        elif self.quantizer == "lfq":
            self._check_code_sizes(2**self.codebook_dim, self.codebook_dim)

    def _check_code_sizes(self, codebook_size: int, codebook_dim: int) -> None:
        if (self.codebook_size, self.codebook_dim) != (codebook_size, codebook_dim):
            raise ValueError(
                f"this {self.quantizer} has {codebook_size} codes of length {codebook_dim}, got "
                f"codebook_size {self.codebook_size} and codebook_dim {self.codebook_dim}"
            )

    def _check_architecture(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ValueError(
                f"architecture must be one of {get_args(Architecture)}, got {self.architecture!r}"
            )
        if self.latent_channels is not None:
            if self.architecture != "llamagen":
                raise ValueError(
                    "latent_channels is for architecture 'llamagen', "
                    f"got {self.latent_channels} for {self.architecture!r}"
                )
            if self.latent_channels < 1:
                raise ValueError(f"latent_channels must be at least 1, got {self.latent_channels}")
        if self.architecture == "llamagen" and set(self.downsample_factors) - {2}:
            raise ValueError(
                f"architecture 'llamagen' halves only, got downsample_factors "
                f"{self.downsample_factors}"
            )

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.base_channels * multiplier for multiplier in self.channel_multipliers)

    @property
    def encoder_channels(self) -> int:
        """Channels outside of the convolutions around the codebook, where there are any."""
        return self.codebook_dim if self.latent_channels is None else self.latent_channels

    @property
    def downsampling(self) -> int:
        """Pixels per code along a side."""
        return math.prod(self.downsample_factors)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of the token grid."""
        side = self.image_size // self.downsampling
        return side, side


def f16_vqgan(image_size: int = 256) -> TokenizerConfig:
    """The published f16 VQGAN: 1024 codes of 256 dimensions, 16 pixels a code (as published).

    To train one in batches of fewer than about 32 images of 256 pixels, over all processes, lower
    ``dead_code_threshold``: evenly used codes have a quarter of a hit an image.
    """
    return TokenizerConfig(
        image_size=image_size,
        base_channels=128,
        channel_multipliers=(1, 1, 2, 2, 4),
        downsample_factors=(2, 2, 2, 2),
        num_res_blocks=2,
        codebook_size=1024,
        codebook_dim=256,
    )


def llamagen_f16(image_size: int = 256) -> TokenizerConfig:
    """LlamaGen's `vq_ds16_c2i`: 16,384 codes of 8 dimensions, 16 pixels a code (as published)."""
    return TokenizerConfig(
        image_size=image_size,
        base_channels=128,
        channel_multipliers=(1, 1, 2, 2, 4),
        downsample_factors=(2, 2, 2, 2),
        num_res_blocks=2,
        codebook_size=16384,
        codebook_dim=8,
        normalize_codes=True,
        dead_code_threshold=0.1,
        architecture="llamagen",
        latent_channels=256,
    )


def small(
    image_size: int = 30,
    *,
    downsample_factors: tuple[int, ...] = (2, 3),
    base_channels: int = 16,
    codebook_size: int = 512,
    codebook_dim: int = 32,
) -> TokenizerConfig:
    """A tokenizer for small images that trains on a laptop's CPU.

    Channels double at each level. Groups hold at least four channels, since with one channel a
    group (``base_channels`` = ``norm_groups``) every norm would erase the mean of each channel.
    """
    return TokenizerConfig(
        image_size=image_size,
        base_channels=base_channels,
        channel_multipliers=tuple(2**level for level in range(len(downsample_factors) + 1)),
        downsample_factors=downsample_factors,
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        norm_groups=max(base_channels // 4, 1),
        dead_code_threshold=1.0,
    )
