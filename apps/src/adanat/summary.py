"""A run's result in numbers: the table's columns, means over seeds, and the table as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from adanat.contestants import describe
from adanat.judge import LITE2
from adanat.metrics import t_interval
from adanat.report_data import Column, Value
from adanat.run import Run
from adanat.scoreboard import CLASSIFIER, DISTANCE

MIN_TEST_IMAGES = 1000
"""Below this many test images no ranking of policies is claimed."""
MIN_SEEDS = 5

COLUMNS = (
    Column(key=DISTANCE, label="lite2 FD", better="lower"),
    Column(key=f"{LITE2}_kid", label="lite2 KID", better="lower", digits=5),
    Column(key=f"{LITE2}_fd_pca64", label="lite2 FD, 64 PC", better="lower"),
    Column(key=f"{LITE2}_precision", label="precision", better="higher", digits=3),
    Column(key=f"{LITE2}_recall", label="recall", better="higher", digits=3),
    Column(key=f"{CLASSIFIER}_fd", label="classifier FD", better="lower", digits=3),
    Column(key="caption_score", label="caption score", better="higher", digits=3),
    Column(key="network_passes", label="passes / image", digits=1),
    Column(key="images_per_second", label="images / s", digits=2),
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
    found = run.stages.evaluation.results()
    means = {**mean_scores(found["scores"]), **found["bounds"]}
    columns = [c for c in COLUMNS if any(c.key in row for row in means.values())]
    rows = [["policy", *(column.label for column in columns)]]
    for name, scores in means.items():
        rows.append([name, *(_cell(scores.get(c.key), c.digits) for c in columns)])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines, "", protocol_line(run), *notes(run)])


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
    intervals = "± is the 95 % interval over seeds."
    return (
        "\n".join(
            [*lines, "", protocol_line(run), intervals, *notes(run), "", *_comparison_table(run)]
        )
        + "\n"
    )


def protocol_line(run: Run) -> str:
    """How the figures were measured; printed with every table."""
    protocol = run.stages.evaluation.results()["protocol"]
    seeds = ", ".join(map(str, protocol["seeds"]))
    return (
        f"{protocol['num_samples']} samples a seed; generation seeds {seeds}; "
        f"{protocol['label_plan']}; {protocol['features']}; against "
        f"{protocol['reference']}. The confirming classifier is "
        f"right on {100 * protocol['classifier_accuracy']:.1f} % of the test images."
        + _caption_line(protocol)
    )


def _caption_line(protocol: dict[str, Any]) -> str:
    """How far the caption score can be believed, where there is one."""
    real = protocol.get("caption_score_of_validation_pairs")
    if real is None:
        return ""
    return (
        " The caption score is the share of other images' captions that an image's own one beats "
        f"under a scorer trained on the fit split; real validation pairs reach {real:.3f}, chance "
        "is 0.5."
    )


def notes(run: Run) -> list[str]:
    """What a reader must know before believing the table."""
    found = []
    if is_too_small(run):
        found.append(
            f"{run.stages.data.results()['images']['test']} test images of "
            f"{run.recipe.data.source} are too few to rank policies: the figures show that every "
            "part works, and no order is claimed."
        )
    if len(run.recipe.evaluation.seeds) < MIN_SEEDS:
        found.append(f"Fewer than {MIN_SEEDS} generation seeds: intervals are a rough guide.")
    return found


def is_too_small(run: Run) -> bool:
    """Whether the test set is too small to rank policies on."""
    return int(run.stages.data.results()["images"]["test"]) < MIN_TEST_IMAGES


def _comparison_table(run: Run) -> list[str]:
    steps = run.recipe.num_decoding_steps
    most = max((steps, *run.recipe.schedule.comparison_steps))
    lines = [
        f"Against the tuned schedule at {steps} steps, paired (mean, 95 % interval):",
        "",
        "| policy seed | gain in lite2 FD | relative reduction | gain in classifier FD "
        f"| change of recall | equivalent tuned steps | share of the gap between {steps} and "
        f"{most} steps | gain over its own average | gain over the searched schedule |",
        "| --- |" + " ---: |" * 8,
    ]
    for seed, found in run.stages.evaluation.results()["comparisons"].items():
        equivalent = found["equivalent_steps"]
        cells = [
            _range(found[f"{DISTANCE}_gain"], 2),
            f"{100 * found['relative_reduction']:.1f} %",
            _range(found[f"{CLASSIFIER}_fd_gain"], 3),
            _range(found[f"{LITE2}_recall_gain"], 4, sign=-1),
            "more than measured" if equivalent is None else _steps(equivalent, steps),
            "-" if is_too_small(run) else _range(found["gap_share"], 2),
            _range(found["gain_over_own_average"], 2),
            _range(found["gain_over_searched"], 2),
        ]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return lines


def _steps(equivalent: float, fewest: int) -> str:
    """The smallest measured count stands for all below it."""
    return f"at most {fewest}" if equivalent <= fewest else f"{equivalent:.1f}"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(interval: dict[str, Any] | None, digits: int, *, sign: int = 1) -> str:
    """`mean [low, high]`; sign -1 turns tuned - adaptive into adaptive - tuned."""
    if interval is None:
        return "-"
    low, high = sorted((sign * interval["low"], sign * interval["high"]))
    return f"{sign * interval['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
