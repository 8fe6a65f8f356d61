"""An image-text score of the data set itself: does a picture show what its caption says?

CLIPScore (arXiv 2104.08718) asks a network that knows photographs. For other pictures, and where no
CLIP can be had, a small dual encoder is trained by CLIP's loss on the real pairs of the fit split:
frozen image features on one side, which neither the transformer nor the reward is trained on, and
caption features on the other. Whether it can be believed is measured: its score of real pairs that
it has not seen stands beside every score of samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHUNK = 1000  # images that are compared with all captions at once


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """Size and training of a scorer.

    Attributes:
        embed_dim: where images and captions meet.
        num_steps: optimizer steps, at least 1.
        batch_size: pairs a step, at least 2.
        learning_rate: peak of the one-cycle schedule, above 0.
        seed: of weights and batches.
    """

    embed_dim: int = 128
    num_steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("embed_dim", 1), ("num_steps", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")


class ImageTextScorer(nn.Module):
    """Two small towers on frozen features; a pair's score is the cosine of their outputs."""

    def __init__(self, image_dim: int, text_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.image_tower = _tower(image_dim, embed_dim)
        self.text_tower = _tower(text_dim, embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Image features (B, D) and caption features (C, P) -> scores (B, C) in [-1, 1]."""
        left = F.normalize(self.image_tower(images), dim=1)
        right = F.normalize(self.text_tower(captions), dim=1)
        return left @ right.T


def train_scorer(
    images: Tensor,
    captions: Tensor,
    config: ScorerConfig,
    on_step: Callable[[float], None] | None = None,
) -> ImageTextScorer:
    """Train a scorer on real pairs by CLIP's symmetric cross-entropy (arXiv 2103.00020).

    Args:
        images: features of images (N, D), N at least 2.
        captions: pooled features of their captions (N, P).
        config: size and training.
        on_step: gets the loss of each step.

    Returns:
        The scorer, in evaluation mode on the features' device.

    Raises:
        ValueError: there are not as many images as captions, or fewer than 2.
    """
    _check_pairs(images, captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        scorer = ImageTextScorer(images.shape[1], captions.shape[1], config.embed_dim)
    scorer.to(images.device)
    optimizer = torch.optim.AdamW(scorer.parameters(), config.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps
    )
    generator = torch.Generator().manual_seed(config.seed)
    batch_size = min(config.batch_size, len(images))
    for _ in range(config.num_steps):
        rows = torch.randperm(len(images), generator=generator)[:batch_size].to(images.device)
        logits = scorer(images[rows], captions[rows]) * scorer.log_scale.exp()
        own = torch.arange(batch_size, device=images.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(loss.item())
    return scorer.eval()


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """What each of N images scores for its own caption and for those of the N - 1 others.

    Attributes:
        own: score for the own caption, (N,) float64 in [-1, 1].
        others: mean score for the other images' captions, (N,) float64.
        wins: share of the other captions that the own one beats, draws counted half, (N,) float64.
    """

    own: Tensor
    others: Tensor
    wins: Tensor

    @property
    def win_share(self) -> float:
        """Share of all N (N - 1) comparisons that the own caption wins.

        1 is the best; 0.5 is what images of no or of random captions reach.
        """
        return float(self.wins.mean())


@torch.no_grad()
def score_captions(scorer: ImageTextScorer, images: Tensor, captions: Tensor) -> CaptionScores:
    """Score every image for its own caption and for every other image's.

    Args:
        scorer: see `train_scorer`.
        images: features of images (N, D), N at least 2.
        captions: pooled features of their captions (N, P).

    Raises:
        ValueError: there are not as many images as captions, or fewer than 2.
    """
    _check_pairs(images, captions)
    own, others, wins = [], [], []
    for rows in torch.arange(len(images), device=images.device).split(_CHUNK):
        scores = scorer(images[rows], captions).double()
        of_own = scores.gather(1, rows.unsqueeze(1))
        beaten = (of_own > scores).double() + 0.5 * (of_own == scores).double()
        own.append(of_own.squeeze(1))
        others.append((scores.sum(dim=1) - of_own.squeeze(1)) / (len(images) - 1))
        wins.append((beaten.sum(dim=1) - 0.5) / (len(images) - 1))  # less the draw with itself
    return CaptionScores(own=torch.cat(own), others=torch.cat(others), wins=torch.cat(wins))


def _check_pairs(images: Tensor, captions: Tensor) -> None:
    if len(images) != len(captions) or len(images) < 2:
        raise ValueError(
            f"need one caption for each of at least 2 images, got {len(images)} images and "
            f"{len(captions)} captions"
        )


def _tower(input_dim: int, embed_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(input_dim),
        nn.Linear(input_dim, 2 * embed_dim),
        nn.GELU(),
        nn.Linear(2 * embed_dim, embed_dim),
    )
