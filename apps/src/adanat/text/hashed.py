"""Captions without a model: every word has a random vector of its own."""

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

_DIM = 64
_WORD = re.compile(r"[\w-]+")


class HashedTextEncoder:
    """Words as random vectors seeded by their hashes: deterministic, for tests and trial runs.

    Token features are the vectors of the first N words, zeros behind the last; the pooled vector is
    the sum of all words' vectors, scaled to length 1 (zeros for an empty caption). Satisfies
    `natgen.TextEncoder`.

    Args:
        num_tokens: N, at least 1.
        device: where the features are put.
    """

    token_dim = _DIM
    pooled_dim = _DIM

    def __init__(self, num_tokens: int, device: torch.device | str = "cpu") -> None:
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
        self.name = f"hashed, {num_tokens} tokens"
        self.num_tokens = num_tokens
        self._device = torch.device(device)
        self._vectors: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B captions -> token features (B, N, 64) and pooled features (B, 64), float32."""
        tokens = torch.zeros(len(captions), self.num_tokens, _DIM)
        pooled = torch.zeros(len(captions), _DIM)
        for row, caption in enumerate(captions):
            vectors = [self._vector(word) for word in _WORD.findall(caption.lower())]
            for column, vector in enumerate(vectors[: self.num_tokens]):
                tokens[row, column] = vector
            for vector in vectors:
                pooled[row] += vector
        pooled = torch.nn.functional.normalize(pooled, dim=1)
        return tokens.to(self._device), pooled.to(self._device)

    def _vector(self, word: str) -> Tensor:
        if word not in self._vectors:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7])
            generator = torch.Generator().manual_seed(seed)
            self._vectors[word] = torch.randn(_DIM, generator=generator)
        return self._vectors[word]
