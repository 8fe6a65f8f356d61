"""The tokenizer: images to grids of codes and back."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from vqtok.config import Architecture, TokenizerConfig
from vqtok.decoder import Decoder
from vqtok.encoder import Encoder
from vqtok.llamagen import LlamaGenDecoder, LlamaGenEncoder
from vqtok.quantizer import Quantizer, VectorQuantizer
from vqtok.scalar_quantizers import FiniteScalarQuantizer, LookupFreeQuantizer

_ARCHITECTURES: Mapping[
    Architecture, tuple[type[Encoder | LlamaGenEncoder], type[Decoder | LlamaGenDecoder]]
] = MappingProxyType({"vqgan": (Encoder, Decoder), "llamagen": (LlamaGenEncoder, LlamaGenDecoder)})


class TokenizerOutput(NamedTuple):
    """What the training forward pass gives."""

    reconstruction: Tensor  # (B, C, H, W), not clamped
    commitment_loss: Tensor  # () weighted: what the quantizer asks of the encoder
    token_grid: Tensor  # (B, h, w) int64


class Tokenizer(nn.Module, PyTorchModelHubMixin):
    """A tokenizer with the layers of the published f16 VQGAN, or of LlamaGen.

    Pixels are in [0, 1] on both sides, whatever range a published network uses inside.
    ``save_pretrained`` writes ``config.json`` and ``model.safetensors``; ``from_pretrained`` reads
    them and refuses weights that do not fit.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = _ARCHITECTURES[config.architecture]
        self.encoder = encoder(config)
        self.quantizer = _make_quantizer(config)
        self.decoder = decoder(config)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of the token grid."""
        return self.config.grid_size

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.config.codebook_size

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Turns images into tokens; never changes the codebook, in training mode neither.

        Args:
            images: (B, C, H, W) floating point in [0, 1].

        Returns:
            Token grid (B, h, w) int64 in [0, codebook_size).

        Raises:
            ValueError: if the images have another shape or are not floating point.
        """
        return self.quantizer.nearest(self.latent(images))

    @torch.no_grad()
    def decode(self, token_grid: Tensor) -> Tensor:
        """Turns tokens into images.

        Args:
            token_grid: (B, h, w) int64 in [0, codebook_size).

        Returns:
            Images (B, C, H, W) clamped to [0, 1].

        Raises:
            ValueError: if the grid has another shape or, but for CUDA tensors, holds ids outside
                of the codebook. On CUDA such ids fail a device-side assertion, so that the host
                need not wait for them.
        """
        if token_grid.ndim != 3 or tuple(token_grid.shape[1:]) != self.grid_size:
            raise ValueError(
                f"expected a token grid of shape (B, {self.grid_size[0]}, {self.grid_size[1]}), "
                f"got {tuple(token_grid.shape)}"
            )
        _check_ids(token_grid, self.codebook_size)
        codes = self.quantizer.lookup(token_grid)
        images: Tensor = self.decoder(codes.to(self.decoder.conv_in.weight.dtype))
        return images.clamp(0, 1)

    def forward(self, images: Tensor) -> TokenizerOutput:
        """Reconstructs images (B, C, H, W) in [0, 1]; in training mode the codebook learns.

        Raises:
            ValueError: if the images have another shape or are not floating point.
        """
        quantized = self.quantizer(self.latent(images))
        return TokenizerOutput(
            reconstruction=self.decoder(quantized.vectors),
            commitment_loss=quantized.commitment_loss,
            token_grid=quantized.token_grid,
        )

    def latent(self, images: Tensor) -> Tensor:
        """Encoder output (B, D, h, w) before quantisation, for images (B, C, H, W) in [0, 1]."""
        expected = (self.config.in_channels, self.config.image_size, self.config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, expected))}), "
                f"got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(f"expected floating point images in [0, 1], got {images.dtype}")
        # Channels-last is the faster layout for the convolutions, on CPU too; it carries through.
        inputs = images.to(self.encoder.conv_in.weight.dtype, memory_format=torch.channels_last)
        latent: Tensor = self.encoder(inputs)
        return latent

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin would otherwise ignore missing and unexpected weights silently.
        if kwargs.get("config") is None:
            raise ValueError(f"{kwargs['model_id']}: config.json is missing or holds no config")
        try:
            tokenizer: Self = super()._from_pretrained(strict=strict, **kwargs)
            return tokenizer
        except (RuntimeError, SafetensorError) as error:
            raise RuntimeError(
                f"the weights in {str(kwargs['model_id'])!r} do not fit the tokenizer that its "
                f"config.json describes, or are damaged: {error}"
            ) from error


def _check_ids(token_grid: Tensor, codebook_size: int) -> None:
    """Refuse ids outside of the codebook: on the host, or on a GPU in its own time."""
    expected = f"token ids must be in [0, {codebook_size})"
    if token_grid.device.type == "cuda":
        inside = (token_grid >= 0) & (token_grid < codebook_size)
        torch._assert_async(inside.all(), expected)
    elif token_grid.numel():
        low, high = (int(value) for value in token_grid.aminmax())
        if low < 0 or high >= codebook_size:
            raise ValueError(f"{expected}, got {low} to {high}")


def _make_quantizer(config: TokenizerConfig) -> Quantizer:
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.fsq_levels)
    if config.quantizer == "lfq":
        return LookupFreeQuantizer(
            config.codebook_dim,
            commitment_weight=config.commitment_weight,
            entropy_weight=config.entropy_weight,
        )
    return VectorQuantizer(
        config.codebook_size,
        config.codebook_dim,
        decay=config.codebook_decay,
        dead_code_threshold=config.dead_code_threshold,
        commitment_weight=config.commitment_weight,
        normalize_codes=config.normalize_codes,
    )
