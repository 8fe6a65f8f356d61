"""Stage `search-schedule`: the best hand-made schedule, found on validation images."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import product
from typing import Any

from adanat.checkpoints import atomic_write_json, read_json
from adanat.judge import LITE2, Judge
from adanat.metrics import Reference, frechet_score
from adanat.run import Run
from adanat.runs import Stage
from adanat.schedule_points import SchedulePoint, default_point, tuned_point
from adanat.seeding import derive_seed


def search_schedule(run: Run) -> None:
    """Measure the grid at the recipe's step count and refine its winner.

    Every point is written down as soon as it is measured, so that an interrupted search goes on
    where it stopped.
    """
    stage = run.stages.schedule
    if stage.is_done():
        return
    recipe, num_steps = run.recipe.schedule, run.recipe.num_decoding_steps
    with stage:
        measured = _Measured(run, stage)
        grid = [
            SchedulePoint(num_steps, remask, sampling, guidance)
            for remask, sampling, guidance in product(
                recipe.remask_temperatures, recipe.sampling_temperatures, recipe.guidance_scales
            )
        ]
        best = measured.refine(measured.best([default_point(num_steps), *grid]))
        stage.finish({"best": asdict(best), "measured": measured.rows})


def search_more_steps(run: Run) -> None:
    """Refine the tuned schedule again at each larger step count: the yardstick of the policies."""
    stage = run.stages.more_steps
    if stage.is_done():
        return
    best = tuned_point(run)
    with stage:
        measured = _Measured(run, stage)
        points = [
            measured.refine(replace(best, num_steps=steps))
            for steps in run.recipe.schedule.comparison_steps
        ]
        stage.finish({"points": [asdict(p) for p in points], "measured": measured.rows})


class _Measured:
    """Validation distances by schedule, kept on disk."""

    def __init__(self, run: Run, stage: Stage) -> None:
        self._path = stage.folder / "measured.json"
        self._num_samples = run.recipe.schedule.num_samples
        self._max_rounds = run.recipe.schedule.refinement_rounds
        self._seed = derive_seed(run.recipe.seed, "schedule search")
        self._engine = run.engine
        self._judge = Judge(run)
        self._reference: Reference | None = None
        self.rows: list[dict[str, Any]] = read_json(self._path) if self._path.is_file() else []
        self._engine.require_equal(len(self.rows), f"scores in {self._path}")

    def best(self, points: Iterable[SchedulePoint]) -> SchedulePoint:
        """The point of the smallest distance; the first of equals."""
        return min(points, key=self.distance)

    def refine(self, point: SchedulePoint) -> SchedulePoint:
        """Compass search: walk to the best neighbour until none is better.

        A winner on the edge of the grid is so followed beyond it.
        """
        for _ in range(self._max_rounds):
            better = self.best([point, *point.neighbours()])
            if better == point:
                break
            point = better
        return point

    def distance(self, point: SchedulePoint) -> float:
        """Frechet distance of the point's samples to the validation images."""
        for row in self.rows:
            if row["point"] == asdict(point):
                return float(row["lite2_fd"])
        if self._reference is None:
            self._reference = self._judge.references("validation")[LITE2]
        sampled = self._judge.sample(
            point.schedule(),
            seed=self._seed,
            num_samples=self._num_samples,
            description=(
                f"schedule T={point.num_steps} remask {point.remask_temperature:g} "
                f"sampling {point.sampling_temperature:g} guidance {point.guidance_scale:g}"
            ),
        )
        scores = {"lite2_fd": frechet_score(sampled.features[LITE2], self._reference)}
        scores = self._engine.mean(scores)  # or processes might walk apart by the last bit
        self.rows.append({"point": asdict(point), **scores})
        if self._engine.is_main:
            atomic_write_json(self._path, self.rows)
        return scores["lite2_fd"]
