"""Metrics and pictures of a training: one file of lines, and TensorBoard events."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from adanat.checkpoints import atomic_write, atomic_write_text
from adanat.errors import StorageError

METRICS_FILE = "metrics.jsonl"
PICTURES_FOLDER = "pictures"


class MetricsLog:
    """Metrics of a run in ``metrics.jsonl`` and as TensorBoard events; a context manager.

    Opening it for a run resumed at ``step`` drops what was logged after that step, so that the
    file of a resumed run equals that of one never stopped.

    Args:
        folder: Where the files go; created when absent.
        step: The step at which the run goes on, 0 for a new one.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        path = folder / METRICS_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_metrics(folder) if row["step"] <= step] if step else []
            atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = path.open("a")
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; a value that is not finite becomes null.

        Args:
            step: Number of training steps done.
            values: Scalars by name.

        Raises:
            StorageError: The row could not be written.
        """
        row = {"step": step} | {
            name: float(value) if math.isfinite(value) else None for name, value in values.items()
        }
        with self._clear_errors():
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, images: Tensor, *, columns: int) -> None:
        """Keep a grid of images as ``pictures/NAME-STEP.png`` and in TensorBoard.

        Args:
            step: Number of training steps done.
            name: What it shows.
            images: (N, 3, H, W) in [0, 1].
            columns: Images in a row.

        Raises:
            StorageError: It could not be written.
        """
        from torchvision.utils import make_grid, save_image  # imports PyTorch's compiler

        grid = make_grid(images, nrow=columns)
        path = Path(self._file.name).parent / PICTURES_FOLDER / f"{name}-{step:09d}.png"
        atomic_write(path, lambda temporary: save_image(grid, temporary, format="png"))
        with self._clear_errors():
            self._events.add_image(name, grid, step)

    def sync(self) -> None:
        """Bring all rows to the disk before a checkpoint claims their step. Raises StorageError."""
        with self._clear_errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close both files. Raises StorageError when their last rows could not be written."""
        with self._clear_errors():
            self._file.close()
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except StorageError:
            if error is None:  # an earlier error tells more
                raise

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write {self._file.name}: {error.strerror}") from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` in order, [] without one; a torn last line is left out.

    Raises:
        StorageError: A line that is not the last one is damaged.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: "" or a torn row
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise StorageError(f"{path}, line {number} is damaged: {error}") from error
    return rows
