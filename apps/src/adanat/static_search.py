"""Gradient-free search of a static schedule: the yardstick of a learned policy.

AutoNAT's idea (arXiv 2406.05478): one schedule for all images, found by optimising a score of
generated images. CMA-ES (package `cmaes`) searches the raw action space around a prior, so every
candidate is a valid schedule and the prior is the origin.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from policyrl import ActionSpec
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StaticSearchConfig:
    """The budget and the width of a search.

    Attributes:
        image_budget: images that may be generated in all; counted as a policy's training counts
            its trajectories.
        images_per_score: images that one score takes.
        sigma: initial standard deviation of the raw numbers; 0.6 is the exploration of AdaNAT.
        seed: of the candidates.
    """

    image_budget: int
    images_per_score: int
    sigma: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images_per_score < 1:
            raise ValueError(f"images_per_score is {self.images_per_score}, must be at least 1")
        if self.image_budget < self.images_per_score:
            raise ValueError(
                f"image_budget is {self.image_budget}, must allow at least one score of "
                f"{self.images_per_score} images"
            )
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma is {self.sigma}, must be positive and finite")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, must lie in [0, 2**32)")

    @property
    def num_scores(self) -> int:
        """How many schedules can be scored."""
        return self.image_budget // self.images_per_score


class Candidate(NamedTuple):
    """A schedule and what it was worth."""

    values: Tensor  # (T, A) activated values
    score: float  # lower is better


class StaticSearch:
    """Ask for a schedule, tell its score, until the budget is spent.

    The first candidate is the prior, so the best is never worse. The same scores always lead to the
    same candidates: the state is the list of scores, and a resumed search replays it.

    Args:
        spec: components, prior and active entries; the active entries are searched. Action
            smoothing has no part in it: a schedule is searched as it is.
        config: the budget.
    """

    def __init__(self, spec: ActionSpec, config: StaticSearchConfig) -> None:
        from cmaes import CMA  # with scipy.stats: slow to import, and only a search needs it

        self._spec = spec
        self._config = config
        self._active = spec.active.cpu()
        num_searched = int(self._active.sum())
        if not num_searched:
            raise ValueError("no entry of the action spec is active: there is nothing to search")
        self._optimizer = CMA(mean=np.zeros(num_searched), sigma=config.sigma, seed=config.seed)
        self._scores: list[float] = []
        self._generation: list[tuple[np.ndarray, float]] = []
        self._best: Candidate | None = None
        self._raw = np.zeros(num_searched)

    @property
    def is_done(self) -> bool:
        """Whether the budget is spent."""
        return len(self._scores) >= self._config.num_scores

    @property
    def num_images(self) -> int:
        """Images generated so far."""
        return len(self._scores) * self._config.images_per_score

    @property
    def best(self) -> Candidate:
        """The schedule of the lowest score, the first of equals.

        Raises:
            RuntimeError: before the first score.
        """
        if self._best is None:
            raise RuntimeError("the search has no score yet")
        return self._best

    def ask(self) -> Tensor:
        """The next schedule to score, (T, A) activated values; the same until it is scored."""
        raw = torch.zeros(self._active.shape)
        raw[self._active] = torch.from_numpy(self._raw).float()
        steps = torch.arange(self._spec.num_steps)
        values = self._spec.activate(raw.to(self._spec.prior.device), steps)
        return torch.stack([values[name] for name in self._spec.names], dim=1).cpu()

    def tell(self, score: float) -> None:
        """Give the score of the schedule that `ask` returns.

        Raises:
            RuntimeError: the budget is spent.
            ValueError: the score is not finite.
        """
        if self.is_done:
            raise RuntimeError(f"the budget of {self._config.num_scores} scores is spent")
        if not math.isfinite(score):
            raise ValueError(f"the score of a schedule is {score}, must be finite")
        if self._best is None or score < self._best.score:
            self._best = Candidate(self.ask(), score)
        if self._scores:  # the prior is not of the optimizer's asking
            self._generation.append((self._raw, score))
        if len(self._generation) == self._optimizer.population_size:
            self._optimizer.tell(self._generation)
            self._generation = []
        self._scores.append(score)
        self._raw = self._optimizer.ask()

    def run(
        self, objective: Callable[[Tensor], float], after_score: Callable[[], None] | None = None
    ) -> Candidate:
        """Search until the budget is spent.

        Args:
            objective: (T, A) activated values -> score, lower is better. It should use the same
                labels and noise for every schedule.
            after_score: called after each score, to save the state.
        """
        while not self.is_done:
            self.tell(objective(self.ask()))
            if after_score is not None:
                after_score()
        return self.best

    def state_dict(self) -> dict[str, Any]:
        """The scores so far; builtins, fit for JSON."""
        return {"scores": list(self._scores)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a search of the same spec and config.

        Raises:
            RuntimeError: this search has begun already, or the state goes beyond its budget.
        """
        if self._scores:
            raise RuntimeError(f"the search has {len(self._scores)} scores already")
        for score in state["scores"]:
            self.tell(score)
