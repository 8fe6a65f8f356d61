"""Hand-made schedules as points of a grid: the default one, and the winners of a run's search."""

from dataclasses import dataclass, replace

from natgen import StaticSchedule, published

from adanat.run import Run


@dataclass(frozen=True)
class SchedulePoint:
    """A hand-made schedule of the published form: three scales around its shape."""

    num_steps: int
    remask_temperature: float
    sampling_temperature: float
    guidance_scale: float

    def schedule(self) -> StaticSchedule:
        """The decoding policy of this point."""
        return published(
            self.num_steps,
            remask_temperature=self.remask_temperature,
            sampling_temperature=self.sampling_temperature,
            guidance_scale=self.guidance_scale,
        )

    def neighbours(self) -> list["SchedulePoint"]:
        """The points one step away in one number: its temperatures scaled, its guidance moved."""
        lower_guidance = max(0.0, self.guidance_scale - 1.0)
        found = [
            replace(self, remask_temperature=self.remask_temperature * 2.0),
            replace(self, remask_temperature=self.remask_temperature / 2.0),
            replace(self, sampling_temperature=round(self.sampling_temperature + 0.1, 6)),
            replace(self, sampling_temperature=round(self.sampling_temperature - 0.1, 6)),
            replace(self, guidance_scale=self.guidance_scale + 1.0),
            replace(self, guidance_scale=lower_guidance),
        ]
        return [point for point in found if point != self and point.sampling_temperature > 0]


def default_point(num_steps: int) -> SchedulePoint:
    """The published settings: re-mask temperature 4.5, guidance rising linearly to 3."""
    return SchedulePoint(
        num_steps=num_steps, remask_temperature=4.5, sampling_temperature=1.0, guidance_scale=3.0
    )


def tuned_point(run: Run) -> SchedulePoint:
    """The winner of the grid."""
    run.require(run.stages.schedule)
    return SchedulePoint(**run.stages.schedule.results()["best"])


def tuned_points_of_more_steps(run: Run) -> list[SchedulePoint]:
    """The tuned schedules of the larger step counts."""
    run.require(run.stages.more_steps)
    return [SchedulePoint(**point) for point in run.stages.more_steps.results()["points"]]
