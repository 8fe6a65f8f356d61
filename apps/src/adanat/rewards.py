"""Joins what no package may join alone: tokens, their pictures, and the reward of those."""

from collections.abc import Iterable, Mapping

import torch
from advreward import AdversarialReward
from torch import Tensor
from vqtok import Tokenizer

from adanat.generation import from_uint8


class PictureReward:
    """Scores finished token grids by the adversarial reward of their pictures.

    The frozen features of the batches scored since the last `take_fakes` are kept, because the
    discriminator learns from the very pictures that it has judged: each is decoded and embedded
    once.
    """

    def __init__(self, tokenizer: Tokenizer, reward: AdversarialReward) -> None:
        self._tokenizer = tokenizer
        self._reward = reward
        self._batch_size = reward.config.extract_batch_size
        self._fakes: list[tuple[dict[str, Tensor], Tensor]] = []

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Reward (B,) of `tokens` (B, h, w) under `labels` (B,) or `condition` (B, P)."""
        features = self.embed_tokens(outcome["tokens"])
        conditions = outcome[self._reward.condition_name]
        self._fakes.append((features, conditions))
        return self._reward.score(features, conditions)

    def take_fakes(self) -> tuple[dict[str, Tensor], Tensor]:
        """Features and conditions of all batches scored since the last call, and forget them."""
        if not self._fakes:
            raise RuntimeError("no batch has been scored since the last call: collect a rollout")
        features = _concatenate(part for part, _ in self._fakes)
        conditions = torch.cat([conditions for _, conditions in self._fakes])
        self._fakes.clear()
        return features, conditions

    def embed_tokens(self, tokens: Tensor) -> dict[str, Tensor]:
        """Frozen features of the pictures of token grids (N, h, w)."""
        return _concatenate(
            self._reward.extract(self._tokenizer.decode(chunk))
            for chunk in tokens.split(self._batch_size)
        )

    def embed_images(self, images: Tensor) -> dict[str, Tensor]:
        """Frozen features of uint8 images (N, 3, H, W)."""
        return _concatenate(
            self._reward.extract(from_uint8(chunk)) for chunk in images.split(self._batch_size)
        )


def _concatenate(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    gathered: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, values in part.items():
            gathered.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in gathered.items()}
