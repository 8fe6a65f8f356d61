"""A run's result in numbers: the table's columns, means over seeds, and the table as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from adanat.contestants import describe
from adanat.judge import LITE2
from adanat.metrics import t_interval
from adanat.report import Column, Value
from adanat.run import Run
from adanat.stages.evaluate import CLASSIFIER, DISTANCE

COLUMNS = (
    Column(key=DISTANCE, label="lite2 FD", better="lower"),
    Column(key=f"{LITE2}_kid", label="lite2 KID", better="lower", digits=4),
    Column(key=f"{LITE2}_fd_pca64", label="lite2 FD, 64 PC", better="lower"),
    Column(key=f"{LITE2}_precision", label="precision", better="higher", digits=3),
    Column(key=f"{LITE2}_recall", label="recall", better="higher", digits=3),
    Column(key=f"{CLASSIFIER}_fd", label="classifier FD", better="lower", digits=3),
    Column(key="network_passes", label="passes / image", digits=1),
    Column(key="images_per_second", label="images / s", digits=0),
)


def mean_scores(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean scores over seeds by policy."""
    names = list(dict.fromkeys(row["policy"] for row in rows))
    return {
        name: {
            key: float(np.mean([row[key] for row in rows if row["policy"] == name]))
            for key in rows[0]
            if key not in ("policy", "seed")
        }
        for name in names
    }


def with_interval(values: Sequence[float]) -> Value:
    """Mean over seeds with its 95 % interval, where there is more than one."""
    if len(values) < 2:
        return Value(mean=values[0])
    interval = t_interval(values)
    return Value(mean=interval.mean, half_width=interval.half_width)


def text_table(run: Run) -> str:
    """Means over seeds, aligned for a terminal."""
    means = mean_scores(run.stages.evaluation.results()["scores"])
    columns = [c for c in COLUMNS if any(c.key in row for row in means.values())]
    rows = [["policy", *(column.label for column in columns)]]
    for name, scores in means.items():
        rows.append([name, *(_cell(scores.get(c.key), c.digits) for c in columns)])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def markdown_table(run: Run) -> str:
    """Every policy and both bounds with intervals, and the paired comparisons, as Markdown."""
    found = run.stages.evaluation.results()
    columns = [c for c in COLUMNS if any(c.key in row for row in found["scores"])]
    lines = [
        "| policy | " + " | ".join(c.label for c in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name in dict.fromkeys(row["policy"] for row in found["scores"]):
        cells = []
        for column in columns:
            values = [row[column.key] for row in found["scores"] if row["policy"] == name]
            value = with_interval(values)
            spread = "" if value.half_width is None else f" ± {value.half_width:.{column.digits}f}"
            cells.append(_cell(value.mean, column.digits) + spread)
        lines.append(f"| `{name}` ({describe(name)}) | " + " | ".join(cells) + " |")
    for name, bounds in found["bounds"].items():
        cells = [_cell(bounds.get(column.key), column.digits) for column in columns]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| policy seed | gain in lite2 FD | gain in classifier FD | change of recall "
        "| equivalent steps | share of the step gap |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for seed, comparison in found["comparisons"].items():
        gains = [
            _gain(comparison.get(f"{key}_gain"), digits, sign)
            for key, digits, sign in (
                (DISTANCE, 2, 1),
                (f"{CLASSIFIER}_fd", 3, 1),
                (f"{LITE2}_recall", 4, -1),
            )
        ]
        steps, share = comparison["equivalent_steps"], comparison["gap_share"]
        gains.append("more than measured" if steps is None else f"{steps:.1f}")
        gains.append("-" if share is None else f"{100 * share:.0f} %")
        lines.append(f"| {seed} | " + " | ".join(gains) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _gain(interval: dict[str, Any] | None, digits: int, sign: int) -> str:
    """`mean [low, high]`; the sign turns tuned - adaptive into adaptive - tuned."""
    if interval is None:
        return "-"
    low, high = sorted((sign * interval["low"], sign * interval["high"]))
    return f"{sign * interval['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
