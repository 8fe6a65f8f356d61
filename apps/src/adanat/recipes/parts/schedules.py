"""Schedules that are the same for all images: the tuned one, and the searched one."""

from dataclasses import dataclass

from adanat.recipes.parts.checks import require_positive


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe:
    """Stage 3: the best hand-made schedule, a grid around the published one.

    Every combination is judged on validation images with the same labels and noise.
    """

    remask_temperatures: tuple[float, ...] = (1.0, 4.5, 10.0)
    sampling_temperatures: tuple[float, ...] = (0.8, 1.0, 1.2)
    guidance_scales: tuple[float, ...] = (0.0, 1.0, 3.0)
    num_samples: int = 2000
    """Images generated for each point of the grid."""
    refinement_rounds: int = 3
    """Rounds of compass search around the winner of the grid, also beyond the grid's edges."""
    comparison_steps: tuple[int, ...] = (6, 8, 12, 16)
    """Step counts at which the schedule is tuned and measured as a yardstick for the policy."""

    def __post_init__(self) -> None:
        require_positive("schedule", num_samples=self.num_samples)
        for name in ("remask_temperatures", "sampling_temperatures", "guidance_scales"):
            if not getattr(self, name):
                raise ValueError(f"schedule.{name} is empty: give at least one value")


@dataclass(frozen=True, kw_only=True)
class StaticSearchRecipe:
    """The best schedule for all images, searched without gradients: AutoNAT's idea.

    It has the numbers that the policy learns, one value a step in place of one a sample.
    """

    included: bool = False
    """Whether `run` searches and the evaluation compares what it found."""
    image_budget: int | None = None
    """Images that the search may generate; None: as many as the training of one policy does."""
    images_per_score: int = 500
    """Images by which one schedule is judged, with the same labels and noise for all."""
    sigma: float = 0.6
    """Initial standard deviation of the raw numbers."""

    def __post_init__(self) -> None:
        require_positive(
            "static_search",
            image_budget=1 if self.image_budget is None else self.image_budget,
            images_per_score=self.images_per_score,
            sigma=self.sigma,
        )
