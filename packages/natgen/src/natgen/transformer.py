"""The non-autoregressive transformer (NAT): U-ViT over image tokens, with its size presets."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from natgen.attention import AttentionBackend, SelfAttention
from natgen.conditioning import ClassCondition, TextCondition, TokenEmbedding


@dataclass(frozen=True, kw_only=True)
class NATConfig:
    """Sizes of a NAT. Exactly one of ``num_classes`` and ``context_dim`` is given.

    Attributes:
        codebook_size: number of real codes V; the mask token has id V.
        grid_size: (height, width) of the token grid.
        embed_dim: channels D.
        depth: even; depth // 2 in-blocks, one mid-block, depth // 2 out-blocks (depth + 1 in all).
        num_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: expansion of the feed-forward layers.
        num_classes: number of real classes; label ``num_classes`` is the null class.
        context_dim: channels of the text features.
        num_context_tokens: context tokens ahead of the image tokens; 1 for classes.
        dropout: on the embeddings, in training only.
        attention: backend; "auto" chooses by device and by asking for the operator.
    """

    codebook_size: int
    grid_size: tuple[int, int]
    embed_dim: int
    depth: int
    num_heads: int
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
        for name in ("codebook_size", "embed_dim", "num_heads", "num_context_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
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


class NATOutput(NamedTuple):
    """What a forward pass gives for the image tokens."""

    features: Tensor  # (B, L, D) after the final norm; the policy's input
    logits: Tensor  # (B, L, V) over the real codes


class Block(nn.Module):
    """Pre-norm transformer block; an out-block first merges a long skip."""

    def __init__(self, config: NATConfig, *, merges_skip: bool) -> None:
        super().__init__()
        dim, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.skip = nn.Linear(2 * dim, dim) if merges_skip else None
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, config.num_heads, config.attention)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Input and skip (B, N + L, D) -> (B, N + L, D)."""
        if self.skip is not None and skip is not None:
            x = self.skip(torch.cat([x, skip], dim=-1))
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TokenHead(nn.Module):
    """Features to logits over the real codes; the output table is the token embedding's."""

    def __init__(self, embed_dim: int, codebook_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.bias = nn.Parameter(torch.zeros(codebook_size))

    def forward(self, features: Tensor, table: Tensor) -> Tensor:
        """Features (B, L, D), table (V, D) -> (B, L, V)."""
        return F.linear(self.norm(F.gelu(self.fc(features))), table, self.bias)


class NAT(nn.Module, PyTorchModelHubMixin, library_name="natgen", tags=["masked-image-generation"]):
    """U-ViT with long skips over ``num_context_tokens`` context tokens and L image tokens.

    There is no time token: how much is masked is read off the tokens themselves. Sizes and layer
    conventions are those of the published AdaNAT and AutoNAT generators. ``save_pretrained`` and
    ``from_pretrained`` use a folder with ``config.json`` and ``model.safetensors``.
    """

    def __init__(self, config: NATConfig) -> None:
        super().__init__()
        self.config = config
        dim, half = config.embed_dim, config.depth // 2
        self.token_embedding = TokenEmbedding(
            config.codebook_size + 1, self.seq_len, dim, config.dropout
        )
        self.condition: ClassCondition | TextCondition
        if config.num_classes is not None:
            self.condition = ClassCondition(config.num_classes, dim, config.dropout)
        elif config.context_dim is not None:
            self.condition = TextCondition(config.context_dim, config.num_context_tokens, dim)
        self.in_blocks = nn.ModuleList(Block(config, merges_skip=False) for _ in range(half))
        self.mid_block = Block(config, merges_skip=False)
        self.out_blocks = nn.ModuleList(Block(config, merges_skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(dim)
        self.head = TokenHead(dim, config.codebook_size)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Truncated normal of deviation 0.02 for matrices and tables, zero biases (U-ViT)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, TokenEmbedding):
                nn.init.trunc_normal_(module.position, std=0.02)

    @property
    def seq_len(self) -> int:
        """Number of image tokens L."""
        return self.config.grid_size[0] * self.config.grid_size[1]

    @property
    def grid_size(self) -> tuple[int, int]:
        """(height, width) of the token grid."""
        return self.config.grid_size

    @property
    def mask_token_id(self) -> int:
        """Id of the mask token, one past the last code."""
        return self.config.codebook_size

    @property
    def null_class_id(self) -> int:
        """Label of the null class.

        Raises:
            RuntimeError: the model is conditioned on text.
        """
        if self.config.num_classes is None:
            raise RuntimeError("a text-conditional NAT has no null class; use null_condition()")
        return self.config.num_classes

    def null_condition(self, batch_size: int) -> Tensor:
        """The unconditional branch's condition: (B,) int64 labels or (B, N, C) text features."""
        return self.condition.null(batch_size)

    def check_condition(self, condition: Tensor) -> None:
        """Check shape, type and range; reads labels on the host, so not meant for inner loops.

        Raises:
            ValueError: naming the value and what is allowed.
        """
        self.condition.check(condition)

    def forward(self, tokens: Tensor, condition: Tensor) -> NATOutput:
        """Predict every token at once.

        Args:
            tokens: (B, L) int64 in [0, V], V being the mask token.
            condition: labels (B,) int64 in [0, num_classes], or text features (B, N, C).
        """
        context = self.condition(condition)  # (B, N, D)
        x = torch.cat([context, self.token_embedding(tokens)], dim=1)  # (B, N + L, D)
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        features = self.norm(x[:, context.shape[1] :])  # (B, L, D)
        # The mask token is never predicted: leaving out its row spares a copy of the logits.
        logits = self.head(features, self.token_embedding.word.weight[: self.mask_token_id])
        return NATOutput(features, logits)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, strict: bool = True, **kwargs: Any
    ) -> Self:  # the mixin's default, strict=False, would leave missing weights at random values
        try:
            model: Self = super()._from_pretrained(model_id=model_id, strict=strict, **kwargs)
            return model
        except RuntimeError as error:
            raise RuntimeError(
                f"the weights in {model_id!r} do not fit the NAT that its config.json describes: "
                f"{error}"
            ) from error


def nat_s(
    *, codebook_size: int = 1024, grid_size: tuple[int, int] = (16, 16), num_classes: int = 1000
) -> NATConfig:
    """About 46 M parameters, the size of AutoNAT-S."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        num_classes=num_classes,
        embed_dim=512,
        depth=12,
        num_heads=8,
    )


def nat_b(
    *, codebook_size: int = 1024, grid_size: tuple[int, int] = (16, 16), num_classes: int = 1000
) -> NATConfig:
    """About 101 M parameters: our size between S and L, not a published one."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        num_classes=num_classes,
        embed_dim=768,
        depth=12,
        num_heads=8,
    )


def nat_l(
    *, codebook_size: int = 1024, grid_size: tuple[int, int] = (16, 16), num_classes: int = 1000
) -> NATConfig:
    """About 194 M parameters, as published for ImageNet."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        num_classes=num_classes,
        embed_dim=768,
        depth=24,
        num_heads=8,
    )


def nat_text(
    *,
    codebook_size: int = 1024,
    grid_size: tuple[int, int] = (16, 16),
    context_dim: int = 1280,
    num_context_tokens: int = 77,
) -> NATConfig:
    """As published for CC3M, on text features of OpenCLIP ViT-bigG-14."""
    return NATConfig(
        codebook_size=codebook_size,
        grid_size=grid_size,
        context_dim=context_dim,
        num_context_tokens=num_context_tokens,
        embed_dim=1152,
        depth=28,
        num_heads=16,
    )
