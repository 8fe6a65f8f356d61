"""Scores how well a run's samples show their captions."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from adanat.judge import LITE2, Judge
from adanat.metrics.features import FloatArray
from adanat.progress import ProgressReporter
from adanat.run import Run
from adanat.seeding import derive_seed
from adanat.text.scorer import (
    CaptionScores,
    ImageTextScorer,
    ScorerConfig,
    score_captions,
    train_scorer,
)

_BATCH = 100  # captions that are encoded at once


class CaptionJudge:
    """The image-text scorer of a run, on the evaluation features, see `adanat.text.scorer`.

    Args:
        run: whose data and captions are used; its samples have the captions of the test images.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def score(self, features: FloatArray) -> float:
        """How often samples 0 to N - 1 score higher for their own caption than for another's.

        Args:
            features: `lite2` features (N, D) of the samples.
        """
        return self.compare(features).win_share

    def score_of_real_pairs(self) -> float:
        """The same of the validation images, which the scorer has not seen."""
        return self.compare(self._real("validation"), split="validation").win_share

    def compare(self, features: FloatArray, *, split: str = "test") -> CaptionScores:
        """Score images 0 to N - 1 for their own captions and for one another's.

        Args:
            features: `lite2` features (N, D) of images, drawn or real.
            split: whose captions they have, in that order.
        """
        return score_captions(self._scorer, self._images(features), self._captions(split, features))

    @torch.no_grad()
    def wins_over(self, features: FloatArray, wrong: Mapping[int, str]) -> float:
        """How often samples score higher for their own caption than for a given wrong one.

        Args:
            features: `lite2` features (N, D) of samples 0 to N - 1.
            wrong: other captions for some of them, at least one, by the sample's number.
        """
        rows = list(wrong)
        images, own = self._images(features)[rows], self._captions("test", features)[rows]
        encode, texts = self._run.text_encoder, list(wrong.values())
        others = [encode(texts[i : i + _BATCH])[1] for i in range(0, len(texts), _BATCH)]
        difference = (
            self._scorer(images, own).diagonal()
            - self._scorer(images, torch.cat(others).to(images)).diagonal()
        )
        return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())

    @cached_property
    def _scorer(self) -> ImageTextScorer:
        features = self._real("fit")
        steps = self._run.recipe.text.scorer_steps
        with ProgressReporter("image-text scorer", steps) as progress:
            return train_scorer(
                self._images(features),
                self._captions("fit", features),
                ScorerConfig(
                    num_steps=steps, seed=derive_seed(self._run.recipe.seed, "image-text scorer")
                ),
                on_step=lambda loss: progress.advance(values={"loss": loss}),
            )

    def _real(self, split: str) -> FloatArray:
        return Judge(self._run).references(split)[LITE2].features

    def _images(self, features: FloatArray) -> Tensor:
        return torch.from_numpy(features).to(self._run.device)

    def _captions(self, split: str, features: FloatArray) -> Tensor:
        """Pooled caption features, as many as there are images."""
        conditions = self._run.conditions(split)
        parts = torch.arange(len(features)).split(1000)
        return torch.cat([conditions.of_samples(part).judge for part in parts])
