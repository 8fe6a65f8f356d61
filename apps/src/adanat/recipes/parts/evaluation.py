"""The judgement."""

from dataclasses import dataclass

from adanat.recipes.parts.checks import require_positive


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """Stage 5: the judgement on test images with fresh seeds."""

    num_samples: int = 10_000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Generation seeds; all policies share labels and noise under each of them."""
    batch_size: int = 250
    feature_size: int = 64
    """Images are resized to this side for the evaluation backbone (EfficientNet-Lite2)."""
    classifier_steps: int = 1200
    """Training steps of the classifier of the data set whose features confirm the distances."""
    num_reference: int | None = None
    """Real images of a split that make its reference; None: all of them, in memory."""

    def __post_init__(self) -> None:
        require_positive(
            "evaluation",
            num_samples=self.num_samples,
            batch_size=self.batch_size,
            feature_size=self.feature_size,
            classifier_steps=self.classifier_steps,
        )
        if not self.seeds:
            raise ValueError("evaluation.seeds is empty: give at least one seed")
