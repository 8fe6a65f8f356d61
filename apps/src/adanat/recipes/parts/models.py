"""Tokenizer, tokens and transformer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from natgen import NATTrainingConfig
from vqtok import TokenizerConfig, TokenizerTrainingConfig

from adanat.recipes.parts.checks import require_positive


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Stage 1: images to grids of codes."""

    model: TokenizerConfig
    training: TokenizerTrainingConfig
    batch_size: int
    perceptual_size: int = 32
    """Images are resized to this side for the perceptual backbone."""
    weights: Path | None = None
    """Use this tokenizer instead of training one: a folder with `config.json` and
    `model.safetensors`, or a checkpoint file in `weights_format`."""
    weights_format: Literal["vqgan", "open-muse", "llamagen"] = "vqgan"
    """Layout of the file: the authors' (MAGE's f16 VQGAN), open-muse's or LlamaGen's."""

    def __post_init__(self) -> None:
        require_positive("tokenizer", batch_size=self.batch_size)
        if self.weights_format not in ("vqgan", "open-muse", "llamagen"):
            raise ValueError(
                "tokenizer.weights_format must be 'vqgan', 'open-muse' or 'llamagen', "
                f"got {self.weights_format!r}"
            )
        if self.training.total_steps is None:
            raise ValueError("tokenizer.training.total_steps must be given: it ends the training")

    @property
    def total_steps(self) -> int:
        """Number of updates."""
        return self.training.total_steps or 0


@dataclass(frozen=True, kw_only=True)
class TokensRecipe:
    """The images as codes, which is what the transformer learns from."""

    mirrored: bool = False
    """Whether mirrored copies of the images to learn from follow behind the originals. Captions are
    kept as they are, so leave it out where they tell left from right."""
    batch_size: int = 250
    num_verified: int = 256
    """Items of each split that are encoded again, once the store is finished."""

    def __post_init__(self) -> None:
        require_positive("tokens", batch_size=self.batch_size, num_verified=self.num_verified)


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    """Stage 2: the non-autoregressive transformer on those codes."""

    embed_dim: int
    depth: int
    num_heads: int
    training: NATTrainingConfig
    batch_size: int
    dropout: float = 0.1
    patch_size: int = 1
    """Codes a side that the transformer treats as one position: 2 makes 32x32 codes 16x16."""
    weights: Path | None = None
    """Use this transformer instead of training one: a folder with `config.json` and
    `model.safetensors`, or the authors' checkpoint file."""

    def __post_init__(self) -> None:
        require_positive("generator", batch_size=self.batch_size)
