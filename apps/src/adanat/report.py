"""Write `report.html`: one file that holds its pictures, figures and style."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from adanat import plots
from adanat.checkpoints import atomic_write_text
from adanat.pictures import png_uri, strip, token_map
from adanat.report_data import (
    PARAMETER_NAMES,
    Column,
    DecodingTrace,
    EvaluationProtocol,
    Highlight,
    ParameterCurves,
    ReportData,
    Row,
    SampleSet,
    Series,
    StepCurve,
    Table,
    TrainingFigure,
    Value,
)

__all__ = [
    "PARAMETER_NAMES",
    "Column",
    "DecodingTrace",
    "EvaluationProtocol",
    "Highlight",
    "ParameterCurves",
    "ReportData",
    "Row",
    "SampleSet",
    "Series",
    "StepCurve",
    "Table",
    "TrainingFigure",
    "Value",
    "render_report",
    "write_report",
]

_NOTHING = "\N{EN DASH}"
_SYMBOLS = ("mask", "re-mask", "temp.", "guid.")


@dataclass(frozen=True, kw_only=True)
class _CellView:
    text: str
    spread: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class _RowView:
    row: Row
    colour: str | None
    cells: tuple[_CellView, ...]


@dataclass(frozen=True, kw_only=True)
class _TableView:
    table: Table
    protocol: str
    rows: tuple[_RowView, ...]


@dataclass(frozen=True, kw_only=True)
class _SampleRowView:
    class_name: str
    strips: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _StepView:
    tokens: str
    image: str
    kept: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class _TraceView:
    name: str
    steps: tuple[_StepView, ...]


def write_report(data: ReportData, path: Path) -> Path:
    """Render the report and put it at `path` in one move, so that no half page is ever read.

    Args:
        data: What to show.
        path: The HTML file to write; its folder is made.

    Returns:
        `path`.

    Raises:
        StorageError: The file cannot be written.
    """
    atomic_write_text(path, render_report(data))
    return path


def render_report(data: ReportData) -> str:
    """Render the page as HTML text; equal data give equal text."""
    colours = plots.policy_colours(_policy_names(data))
    environment = Environment(
        loader=PackageLoader("adanat", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        data=data,
        tables=[_table_view(table, colours) for table in data.tables],
        samples=_sample_views(data),
        traces=[_trace_view(trace) for trace in data.traces],
        parameters=(
            plots.svg_uri(plots.parameter_figure(data.parameter_curves, colours))
            if data.parameter_curves
            else None
        ),
        steps=(
            plots.svg_uri(plots.step_figure(data.step_curves, data.step_metric, colours))
            if data.step_curves
            else None
        ),
        training=[
            (training.title, plots.svg_uri(plots.training_figure(training)))
            for training in data.training
        ],
        seconds=[(stage, _duration(seconds)) for stage, seconds in data.seconds.items()],
        total_seconds=_duration(sum(data.seconds.values())),
        config=json.dumps(data.config, indent=2, default=str),
    )


def _policy_names(data: ReportData) -> list[str]:
    """Names that get a colour: the tables' policies first, then those that only figures know."""
    names = [row.name for table in data.tables for row in table.rows if row.kind == "policy"]
    names += [curve.name for curve in data.parameter_curves]
    names += [curve.name for curve in data.step_curves]
    return names


def _table_view(table: Table, colours: Mapping[str, str]) -> _TableView:
    best = {column.key: _best(column, table.rows) for column in table.columns}
    rows = []
    for row in table.rows:
        cells = []
        for column in table.columns:
            value = _value(row, column.key)
            cells.append(_cell_view(value, column, best[column.key] if _is_policy(row) else None))
        rows.append(_RowView(row=row, colour=colours.get(row.name), cells=tuple(cells)))
    return _TableView(table=table, protocol=_protocol(table.protocol), rows=tuple(rows))


def _cell_view(value: Value | None, column: Column, best: float | None) -> _CellView:
    if value is None:
        return _CellView(text=_NOTHING, spread="", best=False)
    spread = ""
    if value.half_width is not None:
        spread = f"±{_number(value.half_width, column.digits)}"
    return _CellView(
        text=_number(value.mean, column.digits),
        spread=spread,
        best=best is not None and value.mean == best,
    )


def _best(column: Column, rows: Sequence[Row]) -> float | None:
    """The best policy's mean; None where it is no contest or all are equal."""
    values = [_value(row, column.key) for row in rows if _is_policy(row)]
    means = [value.mean for value in values if value is not None and math.isfinite(value.mean)]
    if column.better is None or len(set(means)) < 2:
        return None
    return min(means) if column.better == "lower" else max(means)


def _is_policy(row: Row) -> bool:
    return row.kind == "policy"


def _value(row: Row, key: str) -> Value | None:
    value = row.values.get(key)
    if value is None or isinstance(value, Value):
        return value
    return Value(mean=float(value))


def _number(number: float, digits: int) -> str:
    return f"{number:,.{digits}f}" if math.isfinite(number) else "n/a"


def _protocol(protocol: EvaluationProtocol) -> str:
    seeds = len(protocol.seeds)
    listed = ", ".join(str(seed) for seed in protocol.seeds)
    return (
        f"{protocol.num_samples:,} samples a seed · {seeds} {'seed' if seeds == 1 else 'seeds'} "
        f"({listed}) · {protocol.label_plan} · {protocol.features} · "
        f"against {protocol.reference}"
    )


def _sample_views(data: ReportData) -> list[_SampleRowView]:
    if not data.samples:
        return []
    return [
        _SampleRowView(
            class_name=class_name,
            strips=tuple(png_uri(strip(sample_set.images[row])) for sample_set in data.samples),
        )
        for row, class_name in enumerate(data.class_names)
    ]


def _trace_view(trace: DecodingTrace) -> _TraceView:
    steps = []
    for step, revealed in enumerate(trace.revealed):
        before = trace.revealed[step - 1] if step else None
        parameters: tuple[tuple[str, str], ...] = ()
        if trace.parameters is not None:
            texts = [f"{number:.2f}" for number in trace.parameters[step]]
            if step == len(trace.revealed) - 1:
                texts[:2] = [_NOTHING, _NOTHING]  # no effect at the last step
            parameters = tuple(zip(_SYMBOLS, texts, strict=True))
        steps.append(
            _StepView(
                tokens=png_uri(token_map(revealed, before)),
                image=png_uri(strip(trace.images[step : step + 1])),
                kept=f"{int(revealed.sum())} of {revealed.size}",
                parameters=parameters,
            )
        )
    return _TraceView(name=trace.name, steps=tuple(steps))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
