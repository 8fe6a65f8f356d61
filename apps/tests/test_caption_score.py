"""The image-text score: what it counts, that it learns real pairs, and that it is repeatable."""

import pytest
import torch
from adanat.text.scorer import ImageTextScorer, ScorerConfig, caption_score, train_scorer
from torch import Tensor

CONFIG = ScorerConfig(embed_dim=16, num_steps=150, batch_size=64, learning_rate=5e-3)


class Table(ImageTextScorer):
    """Scores that were written down."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(1, 1, 1)
        self.scores = scores

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        return self.scores


def pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two noisy linear views of the same hidden vectors."""
    views = torch.Generator().manual_seed(0)
    left, right = torch.randn(6, 20, generator=views), torch.randn(6, 12, generator=views)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 6, generator=generator)
    noise = 0.3 * torch.randn(count, 20, generator=generator)
    return hidden @ left + noise, hidden @ right


def test_own_captions_are_compared_with_all_others() -> None:
    table = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.5], [0.1, 0.9, 0.3]])
    wins = (1 + 1) + (0 + 0.5) + (1 + 0)
    assert caption_score(Table(table), torch.zeros(3, 1), torch.zeros(3, 1)) == wins / 6


def test_equal_scores_are_worth_a_half() -> None:
    assert caption_score(Table(torch.ones(5, 5)), torch.zeros(5, 1), torch.zeros(5, 1)) == 0.5


def test_it_tells_unseen_pairs_from_shuffled_ones() -> None:
    scorer = train_scorer(*pairs(800, 1), CONFIG)
    images, captions = pairs(200, 2)
    assert caption_score(scorer, images, captions) > 0.95
    assert abs(caption_score(scorer, images, captions.roll(1, 0)) - 0.5) < 0.1


def test_training_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    config = ScorerConfig(num_steps=3, batch_size=8)
    first = train_scorer(*pairs(20, 1), config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    second = train_scorer(*pairs(20, 1), config)
    images, captions = pairs(4, 3)
    assert torch.equal(first(images, captions), second(images, captions))


def test_every_image_needs_its_caption() -> None:
    scorer = ImageTextScorer(3, 2, 4)
    for call in (
        lambda: caption_score(scorer, torch.zeros(3, 3), torch.zeros(2, 2)),
        lambda: train_scorer(torch.zeros(1, 3), torch.zeros(1, 2), CONFIG),
    ):
        with pytest.raises(ValueError, match="one caption for each of at least 2 images"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScorerConfig(**options)
