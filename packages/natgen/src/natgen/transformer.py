"""The non-autoregressive transformer (NAT): U-ViT over image tokens."""

from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from natgen.attention import AttentionChoice, SelfAttention, choose_attention
from natgen.conditioning import ClassCondition, TextCondition, TokenEmbedding
from natgen.config import NATConfig
from natgen.patches import merge_patches, split_patches


class NATOutput(NamedTuple):
    """What a forward pass gives for the image tokens."""

    features: Tensor  # (B, N, D) after the final norm, one a patch; the policy's input
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
        """Input and skip (B, S, D) -> (B, S, D), S counting context tokens and image positions."""
        if self.skip is not None and skip is not None:
            x = self.skip(torch.cat([x, skip], dim=-1))
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TokenHead(nn.Module):
    """Features to logits over the real codes; the output table is the token embedding's.

    Its gradients reach the table, too. (In training, the published code detaches it here.)
    """

    def __init__(self, config: NATConfig) -> None:
        super().__init__()
        dim, self._codes = config.embed_dim, config.patch_size**2
        self._grid = config.grid_size, config.patch_size
        self.fc = nn.Linear(dim, self._codes * dim)
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(config.codebook_size))

    def forward(self, features: Tensor, table: Tensor) -> Tensor:
        """Features (B, N, D), table (V, D) -> (B, L, V) in raster order."""
        codes = F.gelu(self.fc(features)).unflatten(-1, (self._codes, -1))  # (B, N, p^2, D)
        return F.linear(self.norm(merge_patches(codes, *self._grid)), table, self.bias)


class NAT(nn.Module, PyTorchModelHubMixin, library_name="natgen", tags=["masked-image-generation"]):
    """U-ViT with long skips over ``num_context_tokens`` context tokens and N image positions.

    There is no time token: how much is masked is read off the tokens themselves. Sizes and layer
    conventions are those of the published AdaNAT and AutoNAT generators. ``save_pretrained`` and
    ``from_pretrained`` use a folder with ``config.json`` and ``model.safetensors``.

    With a ``patch_size`` p of 1 each of the L codes is a position, N = L. With a larger one a
    position is a patch of p x p codes, N = L / p^2: the codes' embeddings are joined by one linear
    layer, and the head gives each code its logits. Codes are masked and drawn one by one all the
    same; only ``features`` are (B, N, D), lying on `feature_grid`.

    Attributes:
        checkpoint_activations: recompute each block's activations in the backward pass of training
            instead of storing them.
    """

    def __init__(self, config: NATConfig) -> None:
        super().__init__()
        self.config = config
        dim, half = config.embed_dim, config.depth // 2
        rows, columns = config.feature_grid
        self.token_embedding = TokenEmbedding(
            config.codebook_size + 1, rows * columns, dim, config.dropout, config.patch_size**2
        )
        self.condition: ClassCondition | TextCondition
        if config.num_classes is not None:
            self.condition = ClassCondition(config.num_classes, dim)
        elif config.context_dim is not None:
            self.condition = TextCondition(config.context_dim, config.num_context_tokens, dim)
        self.in_blocks = nn.ModuleList(Block(config, merges_skip=False) for _ in range(half))
        self.mid_block = Block(config, merges_skip=False)
        self.out_blocks = nn.ModuleList(Block(config, merges_skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(dim)
        self.head = TokenHead(config)
        self.checkpoint_activations = False
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
    def feature_grid(self) -> tuple[int, int]:
        """(height, width) of the grid on which the features lie."""
        return self.config.feature_grid

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
        """The unconditional branch's condition, ``batch_size`` rows.

        Returns:
            (B,) int64 labels, or (B, num_context_tokens, C) text features.
        """
        return self.condition.null(batch_size)

    def attention_choice(self, dtype: torch.dtype | None = None) -> AttentionChoice:
        """Which kernels serve the attention where the weights are now, in the present mode.

        Args:
            dtype: of the queries, as autocast gives them; default the weights'.

        Raises:
            RuntimeError: the config demands xformers, which cannot serve; the message says why.
        """
        config, weight = self.config, self.token_embedding.position
        head_dim = config.embed_dim // config.num_heads
        return choose_attention(
            config.attention, weight.device, dtype or weight.dtype, head_dim, self.training
        )

    def set_null_context(self, context: Tensor) -> None:
        """Say which text features stand for "no text", usually the empty caption's.

        Args:
            context: (N, C), floating.

        Raises:
            RuntimeError: the model is conditioned on classes.
            ValueError: another shape or type.
        """
        if not isinstance(self.condition, TextCondition):
            raise RuntimeError("a class-conditional NAT has a null class and no null context")
        self.condition.check(context.unsqueeze(0))
        self.condition.null_context.copy_(context)

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
            condition: labels (B,) int64 in [0, num_classes], or text features
                (B, num_context_tokens, C).
        """
        config = self.config
        context = self.condition(condition)  # (B, num_context_tokens, D)
        patches = split_patches(tokens, config.grid_size, config.patch_size)  # (B, N, p^2)
        x = torch.cat([context, self.token_embedding(patches)], dim=1)
        skips = []
        for block in self.in_blocks:
            x = self._run(block, x)
            skips.append(x)
        x = self._run(self.mid_block, x)
        for block in self.out_blocks:
            x = self._run(block, x, skips.pop())
        features = self.norm(x[:, context.shape[1] :])  # (B, N, D)
        # The mask token is never predicted: leaving out its row spares a copy of the logits.
        logits = self.head(features, self.token_embedding.word.weight[: self.mask_token_id])
        return NATOutput(features, logits)

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        recompute = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        if not recompute:
            out: Tensor = block(*inputs)
            return out
        # No random numbers inside a block: dropout is on the embeddings.
        out = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin's default, strict=False, would leave missing weights at random values.
        if kwargs.get("config") is None:
            raise ValueError(f"{kwargs['model_id']}: config.json is missing or holds no config")
        try:
            model: Self = super()._from_pretrained(strict=strict, **kwargs)
            return model
        except (RuntimeError, SafetensorError) as error:
            raise RuntimeError(
                f"the weights in {str(kwargs['model_id'])!r} do not fit the NAT that its "
                f"config.json describes, or are damaged: {error}"
            ) from error
