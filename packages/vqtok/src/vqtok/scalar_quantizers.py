"""Quantizers without a learned codebook: the codes are the points of a fixed lattice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtok.quantizer import Quantized, Quantizer


class FiniteScalarQuantizer(Quantizer):
    """Each channel of the latent, squashed, is rounded to one of a few levels (arXiv 2309.15505).

    It has no weights and no loss of its own, so ``commitment_loss`` is 0.

    Args:
        levels: number of levels of each channel, at least 3; their product is the codebook's size.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        from vector_quantize_pytorch import FSQ  # slow to import, see `VectorQuantizer`

        super().__init__()
        self.fsq = FSQ(list(levels))

    def nearest(self, latent: Tensor) -> Tensor:
        """Indices (B, h, w) int64 of the codes nearest to latents (B, D, h, w)."""
        return self.forward(latent.detach()).token_grid

    def lookup(self, token_grid: Tensor) -> Tensor:
        """Codes (B, D, h, w) in [-1, 1] of token grids (B, h, w)."""
        codes: Tensor = self.fsq.indices_to_codes(token_grid)
        return codes

    def forward(self, latent: Tensor) -> Quantized:
        """Quantises latents (B, D, h, w)."""
        with torch.autocast(latent.device.type, enabled=False):
            vectors, token_grid = self.fsq(latent.float())
        return Quantized(vectors.to(latent.dtype), token_grid.long(), vectors.new_zeros(()))


class LookupFreeQuantizer(Quantizer):
    """Each channel of the latent gives one bit, its sign (arXiv 2310.05737).

    In training, ``commitment_loss`` has an entropy term beside the commitment: each latent should
    be near one code, all latents together should use all codes. It needs memory for tokens times
    codes. In evaluation mode ``commitment_loss`` is 0.

    Args:
        codebook_dim: number of bits D; there are 2^D codes.
        commitment_weight: factor on the mean squared distance between latent and code.
        entropy_weight: factor on the entropy term.
    """

    def __init__(
        self, codebook_dim: int, *, commitment_weight: float, entropy_weight: float
    ) -> None:
        from vector_quantize_pytorch import LFQ  # slow to import, see `VectorQuantizer`

        super().__init__()
        self.lfq = LFQ(
            dim=codebook_dim,
            codebook_size=2**codebook_dim,
            commitment_loss_weight=commitment_weight,
            entropy_loss_weight=entropy_weight,
        )

    def nearest(self, latent: Tensor) -> Tensor:
        """Indices (B, h, w) int64 of the codes nearest to latents (B, D, h, w)."""
        # Not the library's pass, which in training mode computes the entropies, too.
        bits = (latent.detach() > 0).movedim(1, -1)
        indices: Tensor = (bits * self.lfq.mask).sum(-1)
        return indices

    def lookup(self, token_grid: Tensor) -> Tensor:
        """Codes (B, D, h, w) of -1 and 1 of token grids (B, h, w)."""
        codes: Tensor = self.lfq.indices_to_codes(token_grid)
        return codes

    def forward(self, latent: Tensor) -> Quantized:
        """Quantises latents (B, D, h, w)."""
        with torch.autocast(latent.device.type, enabled=False):
            vectors, token_grid, loss = self.lfq(latent.float())
        return Quantized(vectors.to(latent.dtype), token_grid.long(), loss)
