"""A comparison as Markdown, LaTeX, CSV and JSON, and as the figure of quality against cost."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from adanat.checkpoints import atomic_write_json, atomic_write_text
from adanat.errors import DataError
from adanat.evaluation.comparison import COSTS, Entry, gain
from adanat.evaluation.tradeoff import TradeoffPoint, tradeoff_figure
from adanat.plots import save_png, save_svg


class Comparison:
    """Entries with the one that the others are measured against.

    Args:
        entries: At least one.
        metric: The figure whose gain is shown and plotted.
        baseline: Name of an entry; None for no column of gains.

    Raises:
        DataError: There is no such figure or entry.
    """

    def __init__(self, entries: Sequence[Entry], *, metric: str, baseline: str | None) -> None:
        known = {entry.name: entry for entry in entries}
        if baseline is not None and baseline not in known:
            raise DataError(f"there is no entry {baseline!r}; there are {', '.join(known)}")
        self.metrics = list(dict.fromkeys(key for entry in entries for key in entry.scores))
        if metric not in self.metrics:
            raise DataError(f"no entry has {metric!r}; there are {', '.join(self.metrics)}")
        self.entries, self.metric = entries, metric
        self._baseline = known[baseline] if baseline is not None else None
        self._costs = [key for key in COSTS if any(key in entry.cost for entry in entries)]

    @property
    def header(self) -> list[str]:
        """Headings of the table."""
        gains = [f"gain in {self.metric} over {self._baseline.name}"] if self._baseline else []
        return ["policy", "steps", *self.metrics, *gains, *(COSTS[key] for key in self._costs)]

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the table, intervals as half widths."""
        return [self._row(entry) for entry in self.entries]

    def _row(self, entry: Entry) -> list[str]:
        cells = [entry.name, "-" if entry.num_steps is None else str(entry.num_steps)]
        for key in self.metrics:
            score = entry.scores.get(key)
            cells.append("-" if score is None else _spread(score.value, score.half_width))
        if self._baseline is not None:
            paired = gain(self._baseline, entry, self.metric)
            if entry is self._baseline or paired is None:
                cells.append("-")
            else:
                cells.append(_spread(paired.mean, paired.half_width))
        return cells + [_number(entry.cost.get(key)) for key in self._costs]

    def markdown(self) -> str:
        lines = [self.header, ["---", *("---:" for _ in self.header[1:])], *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{self.note}\n"

    def latex(self) -> str:
        """A booktabs table."""
        lines = [" & ".join(map(_tex, line)) + r" \\" for line in [self.header, *self.rows]]
        return "\n".join(
            [
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                f"% {self.note}",
                "",
            ]
        )

    def csv(self) -> str:
        """One line an entry with plain numbers: value, low and high of each figure, costs."""
        buffer = io.StringIO()
        ends = [f"{key}{end}" for key in self.metrics for end in ("", "_low", "_high")]
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["policy", "num_steps", *ends, *self._costs])
        for entry in self.entries:
            numbers: list[float | int | None] = [entry.num_steps]
            for key in self.metrics:
                score = entry.scores.get(key)
                numbers += [score.value, score.low, score.high] if score else [None, None, None]
            writer.writerow([entry.name, *numbers, *(entry.cost.get(key) for key in self._costs)])
        return buffer.getvalue()

    @property
    def note(self) -> str:
        """How the figures were measured."""
        bases = dict.fromkeys(s.basis for entry in self.entries for s in entry.scores.values())
        gains = " Gains above 0 are improvements." if self._baseline else ""
        return f"± is half the 95 % interval.{gains} " + " ".join(f"{basis}." for basis in bases)

    def write(self, folder: Path, *, cost: str) -> None:
        """Write `compare.md`, `.tex`, `.csv`, `.json`, `.png` and `.svg`.

        Args:
            folder: Where they go.
            cost: A key of `COSTS`, the horizontal axis; entries without it are left out of the
                figure.

        Raises:
            DataError: No entry has that cost.
            StorageError: A file cannot be written.
        """
        points = [
            TradeoffPoint(
                curve=entry.family,
                cost=entry.cost[cost],
                value=score.value,
                half_width=score.half_width,
                note=f"T={entry.num_steps}",
            )
            for entry in self.entries
            if cost in entry.cost and (score := entry.scores.get(self.metric)) is not None
        ]
        if not points:
            raise DataError(f"no entry knows {cost}; known are {', '.join(self._costs) or 'none'}")
        atomic_write_text(folder / "compare.md", self.markdown())
        atomic_write_text(folder / "compare.tex", self.latex())
        atomic_write_text(folder / "compare.csv", self.csv())
        atomic_write_json(folder / "compare.json", [asdict(entry) for entry in self.entries])
        figure = tradeoff_figure(points, cost=COSTS[cost], metric=self.metric)
        save_png(figure, folder / "compare.png")
        save_svg(figure, folder / "compare.svg")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _spread(value: float, half_width: float | None) -> str:
    return _number(value) + ("" if half_width is None else f" ± {half_width:.2g}")


def _tex(text: str) -> str:
    for special in "_%&#$":
        text = text.replace(special, f"\\{special}")
    return text.replace("±", r"$\pm$")
