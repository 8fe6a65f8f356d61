"""Latents to codes and back."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What quantising a batch gives."""

    vectors: Tensor  # (B, D, h, w) chosen codes; gradients pass straight through to the latent
    token_grid: Tensor  # (B, h, w) int64
    commitment_loss: Tensor  # () weighted; what else the quantizer asks of the encoder included


class Quantizer(nn.Module, ABC):
    """Latents to codes and back, in float32 whatever the surrounding precision."""

    @abstractmethod
    def nearest(self, latent: Tensor) -> Tensor:
        """Indices (B, h, w) int64 of the codes nearest to latents (B, D, h, w); no gradient."""

    @abstractmethod
    def lookup(self, token_grid: Tensor) -> Tensor:
        """Codes (B, D, h, w) of token grids (B, h, w)."""

    @abstractmethod
    def forward(self, latent: Tensor) -> Quantized:
        """Quantises latents (B, D, h, w)."""


class VectorQuantizer(Quantizer):
    """Vector quantisation to the nearest code by squared Euclidean distance, in float32.

    In training mode a forward pass moves the codes to the moving average of the latents that chose
    them and replaces dead codes by latents of the batch (both by ``vector_quantize_pytorch``, which
    draws from torch's global generator). In evaluation mode, and in `nearest` and `lookup` always,
    nothing changes. Under torch.distributed the averages are shared; build the module after the
    process group.

    Args:
        codebook_size: number of codes V.
        codebook_dim: length D of a code.
        decay: of the moving averages.
        dead_code_threshold: replace codes with fewer hits per batch (moving average) than this.
        commitment_weight: factor on the mean squared distance between latent and code.
        normalize_codes: scale latents and codes to unit length first, as ViT-VQGAN and LlamaGen do.
    """

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        *,
        decay: float,
        dead_code_threshold: float,
        commitment_weight: float,
        normalize_codes: bool = False,
    ) -> None:
        # Here, as it imports PyTorch's compiler, for which `import vqtok` need not wait.
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.commitment_weight = commitment_weight
        self.normalize_codes = normalize_codes
        # No k-means initialisation: until its first training batch the codebook would be all zero,
        # and dead-code replacement already seeds unused codes with latents in the first step.
        self.vq = VectorQuantize(
            dim=codebook_dim,
            codebook_size=codebook_size,
            decay=decay,
            threshold_ema_dead_code=dead_code_threshold,
            commitment_weight=commitment_weight,
            use_cosine_sim=normalize_codes,
            accept_image_fmap=True,
            rotation_trick=False,  # plain straight-through gradients, as published
        )

    @property
    def codebook(self) -> Tensor:
        """The codes (V, D)."""
        codebook: Tensor = self.vq.codebook
        return codebook

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replaces all codes by ``codes`` (V, D), as if each had been hit often enough to stay.

        They are scaled to unit length where the codes are. Codes that are not hit in further
        training become dead after ``log(10) / (1 - decay)`` steps.
        """
        codes = self._scaled(codes.float())
        averages = self.vq._codebook
        hits = max(10 * averages.threshold_ema_dead_code, 1.0)
        averages.embed.copy_(codes)
        averages.embed_avg.copy_(codes * hits)
        averages.cluster_size.fill_(hits)

    def nearest(self, latent: Tensor) -> Tensor:
        """Indices (B, h, w) int64 of the codes nearest to latents (B, D, h, w)."""
        with torch.autocast(latent.device.type, enabled=False):
            codes = self.codebook.float()
            flat = self._scaled(latent.detach().float()).permute(0, 2, 3, 1).flatten(0, 2)
            # |z - e|^2 without the term |z|^2, which is the same for every code.
            distances = torch.addmm(codes.square().sum(1), flat, codes.t(), alpha=-2)
        return distances.argmin(1).view(latent.shape[0], *latent.shape[2:])

    def lookup(self, token_grid: Tensor) -> Tensor:
        """Codes (B, D, h, w) of token grids (B, h, w)."""
        return F.embedding(token_grid, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantises latents (B, D, h, w); updates the codebook in training mode."""
        if self.training:
            with torch.autocast(latent.device.type, enabled=False):
                vectors, token_grid, commitment_loss = self.vq(latent.float())
        else:
            token_grid = self.nearest(latent)
            vectors = self.lookup(token_grid)
            distance = F.mse_loss(self._scaled(latent.float()), vectors.float())
            commitment_loss = self.commitment_weight * distance
        return Quantized(vectors.to(latent.dtype), token_grid, commitment_loss)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=1) if self.normalize_codes else vectors


def codebook_statistics(token_grid: Tensor, codebook_size: int) -> dict[str, float]:
    """How evenly a batch of tokens uses a codebook.

    Args:
        token_grid: token ids in [0, codebook_size), any shape, integer.
        codebook_size: number of codes V.

    Returns:
        ``usage``: share of the codes that occur, in (0, 1]; ``perplexity``: exponential of the
        entropy of the code frequencies, in [1, V].
    """
    usage, perplexity = usage_and_perplexity(token_grid, codebook_size).tolist()
    return {"usage": usage, "perplexity": perplexity}


def usage_and_perplexity(token_grid: Tensor, codebook_size: int) -> Tensor:
    """The numbers of `codebook_statistics`, (2,), on the device of ``token_grid``."""
    ids = token_grid.flatten().long()
    # Not bincount, which waits for the device to learn the largest id.
    counts = ids.new_zeros(codebook_size).scatter_add_(0, ids, torch.ones_like(ids))
    frequencies = counts / counts.sum()
    entropy = torch.special.entr(frequencies).sum()
    return torch.stack([(counts > 0).float().mean(), entropy.exp()])
