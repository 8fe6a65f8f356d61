"""Figures of the report and the documentation, without matplotlib's global state."""

from __future__ import annotations

import base64
import io
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
)
from adanat.pictures import strip, token_map
from adanat.report_data import (
    PARAMETER_NAMES,
    DecodingTrace,
    ParameterCurves,
    SampleSet,
    Series,
    StepCurve,
    TrainingFigure,
    Value,
)

INK = "#1f2937"
MUTED = "#6b7280"
RULE = "#e5e7eb"
PALETTE = ("#6b7280", "#d97706", "#4f46e5", "#0d9488", "#db2777", "#65a30d", "#0284c7")
"""Distinguishable with the common colour deficiencies."""
_POLICY_COLOURS = dict(
    zip((STATIC, STATIC_TUNED, ADAPTIVE, ADAPTIVE_STATIC, STATIC_SEARCHED), PALETTE, strict=False)
)

_LABELS = {
    "mask_ratio": "mask ratio",
    "remask_temperature": "re-mask temperature",
    "sampling_temperature": "sampling temperature",
    "guidance_scale": "guidance scale",
}
_CHARACTER_WIDTH = 0.075
"""Inches that a character of a label takes, about; the bold ones of titles take a third more."""
_ROW_NAME_CHARACTERS = 32
_MARKED_POINTS = 12
"""So few measurements are marked one by one; a single one would be invisible without."""
_INERT_AT_LAST_STEP = ("mask_ratio", "remask_temperature")
STYLE: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "adanat",
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
}


def policy_colours(names: Iterable[str]) -> dict[str, str]:
    """Give each distinct name a colour: an evaluation's policies their own, others what is left."""
    distinct = dict.fromkeys(names)
    taken = {_POLICY_COLOURS[name] for name in distinct if name in _POLICY_COLOURS}
    left = itertools.cycle([colour for colour in PALETTE if colour not in taken])
    return {name: _POLICY_COLOURS.get(name) or next(left) for name in distinct}


def parameter_figure(
    curves: Sequence[ParameterCurves], colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw the four chosen numbers over the steps, one panel each.

    Schedules are dashed; of per-sample choices the mean is a line in bands that hold the middle
    50 % and 90 % of the samples. The last step's mask ratio and re-mask temperature have no
    effect and are left out.
    """
    colours = colours or policy_colours(curve.name for curve in curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 2.9), layout="constrained")
        panels = figure.subplots(1, 4)
        for index, (name, axes) in enumerate(zip(PARAMETER_NAMES, panels, strict=True)):
            for curve in curves:
                last = curve.values.shape[-2] - (name in _INERT_AT_LAST_STEP)
                _draw_choices(
                    axes, curve.values[..., :last, index], curve.name, colours[curve.name]
                )
            axes.set_title(_LABELS[name])
            axes.set_xlabel("decoding step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(0.7, max(curve.values.shape[-2] for curve in curves) + 0.3)
            low, high = axes.get_ylim()
            if high - low < 0.2:  # a constant line sits in the middle, not on a magnified rounding
                axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
        _legend_below(figure, panels[0], len(curves))
    return figure


def step_figure(
    curves: Sequence[StepCurve], metric: str, colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw the distance over the number of steps, with a line across at single points."""
    colours = colours or policy_colours(curve.name for curve in curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.6), layout="constrained")
        axes = figure.subplots()
        ticks = sorted({steps for curve in curves for steps in curve.distances})
        for curve in curves:
            steps = sorted(curve.distances)
            points = [_as_value(curve.distances[count]) for count in steps]
            means = [point.mean for point in points]
            colour = colours[curve.name]
            axes.errorbar(
                steps,
                means,
                yerr=[point.half_width or 0.0 for point in points],
                color=colour,
                marker="o",
                markersize=5 if len(steps) > 1 else 7,
                capsize=3,
                label=curve.name,
                zorder=3 + (len(steps) == 1),
            )
            if len(steps) == 1:
                axes.axhline(means[0], color=colour, linewidth=1, linestyle=(0, (4, 4)), alpha=0.7)
                axes.annotate(
                    f"{curve.name} at {steps[0]} steps",
                    (1, means[0]),
                    xycoords=axes.get_yaxis_transform(),
                    xytext=(-2, 3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7.5,
                    color=colour,
                )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("decoding steps")
        axes.set_ylabel(f"{metric}, lower is better")
        axes.legend(loc="best")
    return figure


def training_figure(training: TrainingFigure) -> Figure:
    """Draw training curves; long noisy ones are pale behind their moving average."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.subplots()
        _draw_training(axes, training)
        if len(training.series) > 1:
            axes.legend(fontsize=8)
    return figure


def training_panels(trainings: Sequence[TrainingFigure]) -> Figure:
    """Draw several figures side by side, with one legend.

    Their series are the same in the same order; the last ones may be missing in some.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(trainings), 2.9), layout="constrained")
        panels = figure.subplots(1, len(trainings), squeeze=False)[0]
        for axes, training in zip(panels, trainings, strict=True):
            _draw_training(axes, training)
        fullest = max(range(len(trainings)), key=lambda i: len(trainings[i].series))
        _legend_below(figure, panels[fullest], len(trainings[fullest].series))
    return figure


def samples_figure(samples: Sequence[SampleSet], class_names: Sequence[str]) -> Figure:
    """Lay sample sets side by side, a row for each class or caption, for the documentation."""
    # Two lines fit beside a row of pictures; what a caption says beyond them is left out.
    names = [
        textwrap.fill(name, _ROW_NAME_CHARACTERS, max_lines=2, placeholder=" …")
        for name in class_names
    ]
    longest_line = max(len(line) for name in names for line in name.splitlines())
    longest_title = max(len(sample_set.name) for sample_set in samples)
    together = samples[0].images.shape[1]
    side = 0.35 if together > 1 else 0.8  # inches
    column = max(side * together, 4 / 3 * _CHARACTER_WIDTH * longest_title)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(
            figsize=(
                (column + 0.1) * len(samples) + _CHARACTER_WIDTH * longest_line + 0.2,
                (side + 0.02) * len(names) + 0.4,
            ),
            layout="constrained",
        )
        grid = figure.subplots(len(names), len(samples), squeeze=False)
        for row, name in enumerate(names):
            for column, sample_set in enumerate(samples):
                axes = grid[row, column]
                _show(axes, strip(sample_set.images[row]))
                if row == 0:
                    axes.set_title(sample_set.name, loc="center")
                if column == 0:
                    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def decoding_figure(traces: Sequence[DecodingTrace]) -> Figure:
    """Draw decodings step by step: kept tokens above, the interim image below."""
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        steps = max(len(trace.images) for trace in traces)
        width = 1.1 * steps + 1.2
        figure = Figure(figsize=(width, 2.3 * len(traces)), layout="constrained")
        parts = figure.subfigures(len(traces), 1, squeeze=False)
        for part, trace in zip(parts[:, 0], traces, strict=True):
            title = textwrap.fill(trace.name, int(width / _CHARACTER_WIDTH))
            part.suptitle(title, fontsize=9, color=INK)
            grid = part.subplots(2, steps, squeeze=False)
            for step in range(steps):
                if step >= len(trace.images):
                    grid[0, step].set_axis_off()
                    grid[1, step].set_axis_off()
                    continue
                before = trace.revealed[step - 1] if step else None
                _show(grid[0, step], token_map(trace.revealed[step], before))
                _show(grid[1, step], strip(trace.images[step : step + 1]))
                grid[1, step].set_xlabel(f"step {step + 1}")
    return figure


def save_png(figure: Figure, path: Path, *, dpi: int = 160) -> None:
    """Save a figure as PNG on white, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})


def save_svg(figure: Figure, path: Path) -> None:
    """Save a figure as SVG, making the folder; equal figures give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_svg(figure))


def svg_uri(figure: Figure) -> str:
    """Encode a figure as a `data:image/svg+xml` URI; equal figures give equal text."""
    return "data:image/svg+xml;base64," + base64.b64encode(_svg(figure)).decode("ascii")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _draw_choices(axes: Axes, values: np.ndarray[Any, Any], name: str, colour: str) -> None:
    steps = np.arange(1, values.shape[-1] + 1)
    if values.ndim == 1:
        axes.plot(steps, values, "o--", color=colour, markersize=3.5, linewidth=1.5, label=name)
        return
    for low, high, alpha in ((5, 95, 0.13), (25, 75, 0.22)):
        band = np.percentile(values, (low, high), axis=0)
        axes.fill_between(steps, *band, color=colour, alpha=alpha, linewidth=0)
    axes.plot(steps, values.mean(axis=0), "o-", color=colour, markersize=4.5, label=name, zorder=4)


def _draw_training(axes: Axes, training: TrainingFigure) -> None:
    for index, series in enumerate(training.series):
        _draw_series(axes, series, PALETTE[(index + 2) % len(PALETTE)])
    axes.set_title(training.title)
    axes.set_xlabel(training.x_label)
    if training.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _draw_series(axes: Axes, series: Series, colour: str) -> None:
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite].astype(np.float64)
    window = len(values) // 30
    if window < 2:
        marker = "o" if len(values) <= _MARKED_POINTS else None
        axes.plot(steps, values, color=colour, label=series.label, marker=marker, markersize=3.5)
        return
    sums = np.cumsum(np.concatenate(([0.0], values)))
    index = np.arange(len(values))
    # Windows shrink towards both ends, so that the smooth line neither lags nor is cut.
    reach = np.minimum(window, np.minimum(index, index[::-1]))
    smooth = (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth, color=colour, label=series.label)


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _show(axes: Axes, picture: np.ndarray[Any, Any]) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _as_value(value: Value | float) -> Value:
    return value if isinstance(value, Value) else Value(mean=value)
