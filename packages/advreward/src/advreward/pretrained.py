"""Rewards of models that were trained beforehand and stay as they are.

One of the two simple designs that the paper compares with the adversarial reward (sec. 3.3): such a
model can be pleased without looking real, and it does not miss the variety that a policy gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advreward.protocols import ImageScorer, PooledFeatures


class PretrainedReward:
    """Pays each image what a fixed scorer says of it and its condition.

    Args:
        scorer: such as `ClassifierScorer`, `SimilarityScorer`, `advreward.clip.clip_scorer`,
            `advreward.image_reward.image_reward_scorer`.
        condition_name: under which an outcome holds the conditions.
        batch_size: images a pass through the scorer.
    """

    def __init__(
        self, scorer: ImageScorer, *, condition_name: str = "labels", batch_size: int = 256
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._scorer = scorer
        self._condition_name = condition_name
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the rewards (B,) float32; a function of one image and its condition.

        Args:
            outcome: ``"images"`` (B, 3, H, W) in [0, 1], and the conditions with B rows.
        """
        images, conditions = outcome["images"], outcome[self._condition_name]
        parts = zip(
            torch.split(images, self._batch_size),
            torch.split(conditions, self._batch_size),
            strict=True,
        )
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._scorer(*part).float() for part in parts])


class ClassifierScorer:
    """Log-probability of the asked class under a classifier, at most 0.

    Args:
        classifier: maps images (B, 3, H, W) in [0, 1] to logits (B, classes), each image by itself:
            in evaluation mode.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor]) -> None:
        self._classifier = classifier

    def __call__(self, images: Tensor, conditions: Tensor) -> Tensor:
        """Returns (B,) for labels (B,) int64.

        Raises:
            ValueError: on a label that the classifier does not know.
        """
        logits = self._classifier(images)
        check_labels(conditions, logits.shape[1])
        return -F.cross_entropy(logits, conditions.to(logits.device), reduction="none")


class SimilarityScorer(nn.Module):
    """Cosine similarity of an image and its text in a shared space, in [-1, 1].

    Args:
        encode_images: maps images (B, 3, H, W) in [0, 1] to vectors (B, P).
        text_embeddings: (N, P), row i for label i: embeddings of a prompt for each class, or of the
            captions of a data set. None where the conditions are such vectors themselves. (Means
            of the image vectors of each class do, where no text encoder is at hand.)
    """

    text_embeddings: Tensor | None

    def __init__(
        self, encode_images: PooledFeatures, text_embeddings: Tensor | None = None
    ) -> None:
        super().__init__()
        self.encode_images = encode_images
        self.register_buffer("text_embeddings", text_embeddings)

    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        """Returns (B,) for labels (B,) int64 or, without a table, vectors (B, P).

        Raises:
            ValueError: on a label outside the table, or vectors of another size than the images'.
        """
        vectors = self.encode_images(images)
        if self.text_embeddings is not None:
            check_labels(conditions, len(self.text_embeddings))
            conditions = self.text_embeddings[conditions.to(self.text_embeddings.device)]
        if conditions.shape != vectors.shape:
            raise ValueError(
                f"texts {tuple(conditions.shape)} and images {tuple(vectors.shape)} must be "
                "vectors of one space"
            )
        return F.cosine_similarity(vectors, conditions.to(vectors))


def check_labels(labels: Tensor, count: int) -> None:
    """Raise ValueError unless ``labels`` are int64 (B,) in [0, count)."""
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 (B,), got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ValueError(
            f"labels must be in [0, {count}), got [{int(labels.min())}, {int(labels.max())}]"
        )
