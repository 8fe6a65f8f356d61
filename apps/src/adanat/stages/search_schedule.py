"""Stage `search-schedule`: the best hand-made schedule, found on validation images."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import product
from typing import Any

from adanat.checkpoints import atomic_write_json, read_json
from adanat.judge import LITE2, Judge
from adanat.metrics import Reference, frechet_score
from adanat.run import Run
from adanat.schedule_points import SchedulePoint, default_point
from adanat.seeding import derive_seed


def search_schedule(run: Run) -> None:
    """Measure the grid, then tune the re-mask temperature again at each larger step count.

    Every point is written down as soon as it is measured, so that an interrupted search goes on
    where it stopped.
    """
    stage = run.stages.schedule
    if stage.is_done():
        return
    recipe, judge = run.recipe.schedule, Judge(run)
    with stage:
        measured = _Measured(run, judge)
        grid = [
            SchedulePoint(run.recipe.num_decoding_steps, remask, sampling, guidance)
            for remask, sampling, guidance in product(
                recipe.remask_temperatures, recipe.sampling_temperatures, recipe.guidance_scales
            )
        ]
        best = measured.best([default_point(run.recipe.num_decoding_steps), *grid])
        more_steps = {
            steps: measured.best(
                SchedulePoint(steps, remask, best.sampling_temperature, best.guidance_scale)
                for remask in recipe.remask_temperatures
            )
            for steps in recipe.comparison_steps
        }
        stage.finish(
            {
                "best": asdict(best),
                "more_steps": [asdict(point) for point in more_steps.values()],
                "measured": measured.rows,
                "num_samples": recipe.num_samples,
            }
        )


class _Measured:
    """Validation distances by schedule, kept on disk."""

    def __init__(self, run: Run, judge: Judge) -> None:
        self._path = run.folder.schedule_result
        self._num_samples = run.recipe.schedule.num_samples
        self._seed = derive_seed(run.recipe.seed, "schedule search")
        self._judge = judge
        self._reference: Reference | None = None
        self._run = run
        self.rows: list[dict[str, Any]] = read_json(self._path) if self._path.is_file() else []

    def best(self, points: Iterable[SchedulePoint]) -> SchedulePoint:
        """The point of the smallest distance; the first of equals."""
        return min(points, key=self.distance)

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
        distance = frechet_score(sampled.features[LITE2], self._reference)
        self.rows.append({"point": asdict(point), "lite2_fd": distance})
        atomic_write_json(self._path, self.rows)
        return distance
