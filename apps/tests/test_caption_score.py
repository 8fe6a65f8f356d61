"""The image-text score: what it counts, that it learns real pairs, and that it is repeatable."""

from pathlib import Path

import pytest
import torch
from adanat.caption_check import CaptionCheck, check_captions, text_table
from adanat.errors import AdanatError
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.text.scorer import (
    CaptionScores,
    ImageTextScorer,
    ScorerConfig,
    score_captions,
    train_scorer,
)
from scipy import stats
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
    table = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.5], [0.1, 0.9, 0.3]], dtype=torch.float64)
    scores = score_captions(Table(table), torch.zeros(3, 1), torch.zeros(3, 1))
    assert scores.own.tolist() == [0.9, 0.5, 0.3]
    assert scores.others.tolist() == pytest.approx([0.15, 0.65, 0.5])
    assert scores.wins.tolist() == [1, 0.25, 0.5]
    assert scores.win_share == (1 + 0.25 + 0.5) / 3


def test_equal_scores_are_worth_a_half() -> None:
    sides = torch.zeros(5, 1), torch.zeros(5, 1)
    assert score_captions(Table(torch.ones(5, 5)), *sides).win_share == 0.5


def test_parts_of_many_images_score_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scorer, images, captions = ImageTextScorer(4, 3, 8), torch.randn(7, 4), torch.randn(7, 3)
    whole = score_captions(scorer, images, captions)
    monkeypatch.setattr("adanat.text.scorer._CHUNK", 3)
    parts = score_captions(scorer, images, captions)
    for name in ("own", "others", "wins"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_it_tells_unseen_pairs_from_shuffled_ones() -> None:
    scorer = train_scorer(*pairs(800, 1), CONFIG)
    images, captions = pairs(200, 2)
    assert score_captions(scorer, images, captions).win_share > 0.95
    assert abs(score_captions(scorer, images, captions.roll(1, 0)).win_share - 0.5) < 0.1


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
        lambda: score_captions(scorer, torch.zeros(3, 3), torch.zeros(2, 2)),
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


def test_a_check_summarises_images_in_pairs() -> None:
    scores = CaptionScores(
        own=torch.tensor([0.5, 0.7, 0.9]),
        others=torch.tensor([0.1, 0.2, 0.0]),
        wins=torch.tensor([1.0, 0.5, 0.9]),
    )
    check = CaptionCheck.of("real", scores, {"ground": 0.75})
    assert (check.own, check.others, check.win_share) == pytest.approx((0.7, 0.1, 0.8))
    low, high = stats.t.interval(0.95, 2, 0.6, stats.sem([0.4, 0.5, 0.9]))
    assert (check.gain.low, check.gain.mean, check.gain.high) == pytest.approx((low, 0.6, high))
    header, row = text_table([check]).splitlines()
    assert header.split()[-2:] == ["wrong", "ground"]
    assert row.split()[:3] == ["real", "0.700", "0.100"]
    assert row.split()[-2:] == ["0.800", "0.750"]


def test_a_run_on_classes_has_no_captions_to_check(tmp_path: Path) -> None:
    run = Run(get_recipe("tiny"), tmp_path)
    with pytest.raises(AdanatError, match="tiny is conditioned on classes"):
        check_captions(run, guidance_scales=(1.0,), num_samples=4, num_steps=2)
