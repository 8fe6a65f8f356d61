"""What a report shows, as plain data.

The pipeline fills these from its saved files; the report neither trains nor measures. Arrays are
numpy, images uint8 (..., 3, H, W) throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
ValueArray = npt.NDArray[np.floating[Any]]
MaskArray = npt.NDArray[np.bool_]

PARAMETER_NAMES = ("mask_ratio", "remask_temperature", "sampling_temperature", "guidance_scale")
"""The four numbers of a decoding step, in the order of every array here."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric of a table.

    Attributes:
        key: Key of the value in `Row.values`.
        label: Heading.
        better: Which direction is better; None where the column is no contest.
        digits: Digits after the point.
    """

    key: str
    label: str
    better: Literal["lower", "higher"] | None = None
    digits: int = 2


@dataclass(frozen=True, kw_only=True)
class Value:
    """A number with its spread.

    Attributes:
        mean: Mean over seeds (or the only value).
        half_width: Half the 95 % interval over seeds; None for a single value.
    """

    mean: float
    half_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        name: Policy name as shown everywhere; equal names get equal colours in the figures.
        values: Column key -> value; a missing key shows a dash.
        kind: "policy" takes part in the contest; "bound" is a floor or a real-to-real value.
        description: What it is, in a few words.
    """

    name: str
    values: Mapping[str, Value | float]
    kind: Literal["policy", "bound"] = "policy"
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How the numbers of a table were measured; printed with it.

    Attributes:
        num_samples: Images a seed.
        seeds: Generation seeds.
        label_plan: Which condition each sample has, such as "balanced labels".
        features: What the distances are measured on.
        reference: The real images on the other side, with their number.
    """

    num_samples: int
    seeds: tuple[int, ...]
    label_plan: str
    features: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results, the headline one first."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    protocol: EvaluationProtocol
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """One number at the top of the page: its label, the value as text, and a short remark."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """Samples of one policy (or real images, or reconstructions) for every class.

    Attributes:
        name: Heading of the column.
        images: uint8 (classes, K, 3, H, W); classes and K agree between the sets of a report.
    """

    name: str
    images: ImageArray

    def __post_init__(self) -> None:
        _check_images(f"samples of {self.name!r}", self.images, ndim=5)


@dataclass(frozen=True, kw_only=True)
class DecodingTrace:
    """The decoding of one image, step by step.

    Attributes:
        name: Caption, such as the policy and the class.
        revealed: bool (T, h, w): tokens that are kept after each step (all, after the last).
        images: uint8 (T, 3, H, W): decoding of each step's full draw.
        parameters: (T, 4) in the order of PARAMETER_NAMES, or None to leave them out.
    """

    name: str
    revealed: MaskArray
    images: ImageArray
    parameters: ValueArray | None = None

    def __post_init__(self) -> None:
        _check_images(f"trace {self.name!r}", self.images, ndim=4)
        steps = len(self.images)
        if self.revealed.ndim != 3 or len(self.revealed) != steps:
            raise ValueError(
                f"trace {self.name!r} has {steps} images and revealed tokens of the shape "
                f"{self.revealed.shape}; ({steps}, h, w) is needed"
            )
        if self.parameters is not None and self.parameters.shape != (steps, 4):
            raise ValueError(
                f"trace {self.name!r} has parameters of the shape {self.parameters.shape}; "
                f"({steps}, 4) is needed"
            )


@dataclass(frozen=True, kw_only=True)
class ParameterCurves:
    """The four numbers that one policy chose.

    Attributes:
        name: Policy name.
        values: (T, 4) for a schedule, or (N, T, 4) for N samples, whose spread is drawn.
    """

    name: str
    values: ValueArray

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 3) or self.values.shape[-1] != 4 or not self.values.size:
            raise ValueError(
                f"curves of {self.name!r} have the shape {self.values.shape}; "
                "(T, 4) or (N, T, 4) is needed"
            )


@dataclass(frozen=True, kw_only=True)
class StepCurve:
    """Distance over the number of decoding steps.

    Attributes:
        name: Policy name; a curve of one point is drawn with a line across, to read off the
            number of steps that the others need to reach it.
        distances: Number of steps -> distance.
    """

    name: str
    distances: Mapping[int, Value | float]

    def __post_init__(self) -> None:
        if not self.distances:
            raise ValueError(f"step curve {self.name!r} is empty; at least one point is needed")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a training figure: label, steps (n,) and values (n,)."""

    label: str
    steps: ValueArray | npt.NDArray[np.integer[Any]]
    values: ValueArray

    def __post_init__(self) -> None:
        if self.steps.shape != self.values.shape or self.steps.ndim != 1:
            raise ValueError(
                f"series {self.label!r} has steps of the shape {self.steps.shape} and values of "
                f"{self.values.shape}; both must be (n,)"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingFigure:
    """A small figure of training curves.

    Attributes:
        title: Heading, such as "Policy: reward".
        series: Lines, drawn with their labels.
        x_label: Such as "step" or "policy update".
        log_y: Whether the vertical axis is logarithmic.
    """

    title: str
    series: tuple[Series, ...]
    x_label: str = "step"
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page.

    Attributes:
        title: Page title.
        subtitle: One line under it: data set, steps, model sizes.
        tables: Result tables, the headline first.
        highlights: A handful of numbers for the top.
        class_names: Names of the classes, as many as the sample sets have rows.
        samples: Sample sets to stand side by side.
        traces: Decodings step by step.
        parameter_curves: The chosen numbers; hand-made schedules first.
        step_curves: Distance over steps; empty to leave the figure out.
        step_metric: Name of the distance in `step_curves`.
        training: Training figures.
        notes: Remarks that a reader needs, such as "Digits are too few to rank policies".
        seconds: Stage -> seconds.
        command: The command that made the run.
        config: The resolved configuration, as JSON-compatible data.
        versions: Component -> version.
    """

    title: str
    subtitle: str = ""
    tables: tuple[Table, ...] = ()
    highlights: tuple[Highlight, ...] = ()
    class_names: tuple[str, ...] = ()
    samples: tuple[SampleSet, ...] = ()
    traces: tuple[DecodingTrace, ...] = ()
    parameter_curves: tuple[ParameterCurves, ...] = ()
    step_curves: tuple[StepCurve, ...] = ()
    step_metric: str = "distance"
    training: tuple[TrainingFigure, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float]
    command: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        shapes = {sample_set.images.shape[:2] for sample_set in self.samples}
        if len(shapes) > 1:
            raise ValueError(
                f"sample sets have the (classes, samples) {sorted(shapes)}; all must agree"
            )
        for classes, _ in shapes:
            if classes != len(self.class_names):
                raise ValueError(
                    f"{len(self.class_names)} class names given for samples of {classes} classes"
                )


def _check_images(what: str, images: ImageArray, *, ndim: int) -> None:
    if images.dtype != np.uint8 or images.ndim != ndim or images.shape[-3] != 3 or not images.size:
        raise ValueError(
            f"{what} are {images.dtype} of shape {images.shape}; "
            f"uint8 of {ndim} dimensions ending in (3, H, W) is needed"
        )
