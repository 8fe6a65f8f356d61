"""Embeddings of image tokens and of the condition (class label or text features)."""

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """LN(word[id] + position[i]), then dropout (U-ViT over tokens).

    Where ``num_joined`` ids share a position, one linear layer joins their embeddings.
    """

    def __init__(
        self, vocabulary: int, length: int, embed_dim: int, dropout: float, num_joined: int = 1
    ) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, embed_dim)
        self.join = (
            nn.Identity() if num_joined == 1 else nn.Linear(num_joined * embed_dim, embed_dim)
        )
        self.position = nn.Parameter(torch.zeros(length, embed_dim))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, length, num_joined) int64 -> (B, length, D)."""
        joined = self.join(self.word(ids).flatten(2))
        out: Tensor = self.dropout(self.norm(joined + self.position))
        return out


class ClassCondition(nn.Module):
    """One context token for a class label; the null class is the last row of its table.

    As published, it has no dropout.
    """

    def __init__(self, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = TokenEmbedding(num_classes + 1, 1, embed_dim, dropout=0.0)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B,) int64 in [0, num_classes] -> (B, 1, D)."""
        out: Tensor = self.embedding(labels[:, None, None])
        return out

    def null(self, batch_size: int) -> Tensor:
        """The null label, (batch_size,) int64."""
        device = self.embedding.position.device
        return torch.full((batch_size,), self.num_classes, dtype=torch.int64, device=device)

    def check(self, condition: Tensor) -> None:
        """Raise ValueError unless ``condition`` is (B,) int64 within [0, num_classes]."""
        if condition.ndim != 1 or condition.dtype != torch.int64:
            raise ValueError(
                f"labels must be (B,) int64, got {tuple(condition.shape)} {condition.dtype}"
            )
        if condition.numel() == 0:
            return
        low, high = (int(value) for value in condition.aminmax())
        if low < 0 or high > self.num_classes:
            wrong = low if low < 0 else high
            raise ValueError(
                f"label {wrong} is out of range: labels lie in [0, {self.num_classes - 1}], "
                f"and {self.num_classes} is the null class"
            )


class TextCondition(nn.Module):
    """Context tokens from the features of a text encoder, by one linear layer.

    ``null_context`` (N, C) stands for "no text": zeros until it is set, usually to the encoder's
    features of the empty string. It is saved with the weights.
    """

    null_context: Tensor

    def __init__(self, context_dim: int, num_context_tokens: int, embed_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(context_dim, embed_dim)
        self.register_buffer("null_context", torch.zeros(num_context_tokens, context_dim))

    def forward(self, context: Tensor) -> Tensor:
        """Context (B, N, C), in any precision -> (B, N, D) in the weights'."""
        out: Tensor = self.projection(context.to(self.projection.weight.dtype))
        return out

    def null(self, batch_size: int) -> Tensor:
        """The null context, (batch_size, N, C), without a copy."""
        return self.null_context.expand(batch_size, -1, -1)

    def check(self, condition: Tensor) -> None:
        """Raise ValueError unless ``condition`` is a floating (B, N, C)."""
        expected = tuple(self.null_context.shape)
        if tuple(condition.shape[1:]) != expected or not condition.is_floating_point():
            raise ValueError(
                f"text features must be floating (B, {expected[0]}, {expected[1]}), "
                f"got {tuple(condition.shape)} {condition.dtype}"
            )
