"""Progress on the terminal: a bar with rate and time left, or a line now and then in a log."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_SECONDS_BETWEEN_LINES = 30.0


class _RateColumn(ProgressColumn):
    """Items per second of this session."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "-/s", style="progress.data.speed")


class ProgressReporter:
    """Shows how far a job is; use as a context manager.

    On a terminal this is a live bar. Elsewhere (a log file, CI) it is a plain line every half
    minute and at the end.

    Args:
        description: What is being done, for example "train-tokenizer".
        total: Number of items in all.
        completed: Items that an earlier session did.
        shown: Whether to show anything; of several processes one should.
    """

    def __init__(
        self, description: str, total: int, completed: int = 0, *, shown: bool = True
    ) -> None:
        self._description = description
        self._total = total
        self._completed = self._first = completed
        self._live = shown and sys.stderr.isatty()
        self._in_lines = shown and not self._live
        self._began = self._last_line = time.monotonic()
        self._values = ""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
            disable=not self._live,
        )
        self._task = self._bar.add_task(description, total=total, completed=completed, values="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._in_lines and self._completed > self._first:
            self._print_line()

    def advance(self, count: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Count ``count`` more items; ``values`` are shown beside the bar until the next ones."""
        self._completed += count
        if values is not None:
            self._values = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._bar.update(self._task, advance=count, values=self._values)
        if self._in_lines and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        rate = (self._completed - self._first) / max(self._last_line - self._began, 1e-9)
        left = timedelta(seconds=round((self._total - self._completed) / rate))
        line = (
            f"{self._description}: {self._completed}/{self._total}  {rate:.3g}/s  "
            f"{left} left  {self._values}"
        )
        print(line.rstrip(), file=sys.stderr, flush=True)
