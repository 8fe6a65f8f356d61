"""Sizes of a NAT, and the size presets."""

from dataclasses import dataclass

from natgen.attention import AttentionBackend


@dataclass(frozen=True, kw_only=True)
class NATConfig:
    """Sizes of a NAT. Exactly one of ``num_classes`` and ``context_dim`` is given.

    Attributes:
        codebook_size: number of real codes V; the mask token has id V.
        grid_size: (height, width) of the token grid.
        patch_size: side of the square of codes that makes one position of the transformer's
            sequence: with 2, a 32x32 grid runs as 16x16 positions. Divides both sides of the grid.
        embed_dim: channels D.
        depth: even; depth // 2 in-blocks, one mid-block, depth // 2 out-blocks (depth + 1 in all).
        num_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: expansion of the feed-forward layers.
        num_classes: number of real classes; label ``num_classes`` is the null class.
        context_dim: channels of the text features.
        num_context_tokens: context tokens ahead of the image tokens; 1 for classes.
        dropout: on the token embeddings, in training only.
        attention: backend; "auto" chooses by device and by asking for the operator.
    """

    codebook_size: int
    grid_size: tuple[int, int]
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 1
    mlp_ratio: float = 4.0
    num_classes: int | None = None
    context_dim: int | None = None
    num_context_tokens: int = 1
    dropout: float = 0.1
    attention: AttentionBackend = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid_size", tuple(self.grid_size))  # JSON gives a list
        if len(self.grid_size) != 2 or min(self.grid_size) < 1:
            raise ValueError(f"grid_size must be two positive ints, got {self.grid_size}")
        for name in (
            "codebook_size",
            "embed_dim",
            "num_heads",
            "num_context_tokens",
            "patch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if any(side % self.patch_size for side in self.grid_size):
            raise ValueError(
                "patch_size must divide both sides of grid_size, "
                f"got {self.patch_size} and {self.grid_size}"
            )
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"depth must be even and at least 2, got {self.depth}")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embed_dim, got {self.num_heads} and {self.embed_dim}"
            )
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio must be above 0, got {self.mlp_ratio}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.attention not in ("auto", "sdpa", "xformers"):
            raise ValueError(
                f"attention must be 'auto', 'sdpa' or 'xformers', got {self.attention!r}"
            )
        if (self.num_classes is None) == (self.context_dim is None):
            raise ValueError(
                "give exactly one of num_classes and context_dim, "
                f"got {self.num_classes} and {self.context_dim}"
            )
        if self.num_classes is not None and (self.num_classes < 1 or self.num_context_tokens != 1):
            raise ValueError(
                "class conditions need num_classes >= 1 and num_context_tokens = 1, "
                f"got {self.num_classes} and {self.num_context_tokens}"
            )
        if self.context_dim is not None and self.context_dim < 1:
            raise ValueError(f"context_dim must be at least 1, got {self.context_dim}")

    @property
    def feature_grid(self) -> tuple[int, int]:
        """(height, width) of the transformer's sequence: `grid_size` over `patch_size`."""
        height, width = self.grid_size
        return height // self.patch_size, width // self.patch_size


def nat_s(
    *,
    codebook_size: int = 1024,
    grid_size: tuple[int, int] = (16, 16),
    patch_size: int = 1,
    num_classes: int = 1000,
) -> NATConfig:
    """About 46 M parameters, the size of AutoNAT-S."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        patch_size=patch_size,
        num_classes=num_classes,
        embed_dim=512,
        depth=12,
        num_heads=8,
    )


def nat_b(
    *,
    codebook_size: int = 1024,
    grid_size: tuple[int, int] = (16, 16),
    patch_size: int = 1,
    num_classes: int = 1000,
) -> NATConfig:
    """About 101 M parameters: our size between S and L, not a published one."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        patch_size=patch_size,
        num_classes=num_classes,
        embed_dim=768,
        depth=12,
        num_heads=8,
    )


def nat_l(
    *,
    codebook_size: int = 1024,
    grid_size: tuple[int, int] = (16, 16),
    patch_size: int = 1,
    num_classes: int = 1000,
) -> NATConfig:
    """About 194 M parameters, as published for ImageNet."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        patch_size=patch_size,
        num_classes=num_classes,
        embed_dim=768,
        depth=24,
        num_heads=8,
    )


def nat_text(
    *,
    codebook_size: int = 1024,
    grid_size: tuple[int, int] = (16, 16),
    patch_size: int = 1,
    context_dim: int = 1280,
    num_context_tokens: int = 77,
) -> NATConfig:
    """About 504 M parameters, as published for CC3M, on features of OpenCLIP ViT-bigG-14."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        patch_size=patch_size,
        context_dim=context_dim,
        num_context_tokens=num_context_tokens,
        embed_dim=1152,
        depth=28,
        num_heads=16,
    )
