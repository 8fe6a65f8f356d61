"""Bookkeeping of stages: what a folder was made with, whether it is finished, its metrics."""

import dataclasses
import enum
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from torch.utils.tensorboard import SummaryWriter

from adanat.checkpoints import atomic_write_json, atomic_write_text, read_json
from adanat.errors import StageError, StorageError

CONFIG_FILE = "config.json"
DONE_FILE = "done.json"
METRICS_FILE = "metrics.jsonl"
_LOCK_FILE = ".lock"
_SECONDS_FILE = "seconds.json"


def config_to_json(config: object) -> Any:
    """Turn a config into JSON values, dataclasses with their type's name under ``"type"``.

    Args:
        config: Dataclasses, mappings with string keys, sequences, paths, enums, None, str,
            bool, int and finite float, nested at will.

    Raises:
        TypeError: Some value is of another type, which JSON could not tell apart later.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {
            f.name: config_to_json(getattr(config, f.name)) for f in dataclasses.fields(config)
        }
        return {"type": type(config).__name__, **fields}
    if isinstance(config, Mapping):
        return {str(key): config_to_json(value) for key, value in config.items()}
    if isinstance(config, enum.Enum):
        return config.name
    if config is None or isinstance(config, (str, bool, int)):
        return config
    if isinstance(config, float) and math.isfinite(config):
        return config
    if isinstance(config, os.PathLike):
        return os.fspath(config)
    if isinstance(config, Sequence) and not isinstance(config, (bytes, bytearray)):
        return [config_to_json(value) for value in config]
    raise TypeError(f"a config cannot hold {config!r} of type {type(config).__name__}")


def fingerprint(value: object) -> str:
    """Hash of a config (see config_to_json) that ignores the order of mapping keys."""
    text = json.dumps(config_to_json(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Stage:
    """One stage of a run in a folder of its own.

    ``config.json`` is written when work starts and ``done.json`` when it is finished; both hold
    the resolved config, and a folder of another config is refused. Work happens in a ``with``
    block, which locks the folder against a second process and adds up the seconds::

        stage = Stage("train-tokenizer", folder, config, depends_on=[data_stage])
        if not stage.is_done():
            with stage:
                ...  # resumes what an earlier session left in the folder
                stage.finish({"loss": 0.1})
        stage.results()

    Args:
        name: The stage's name in messages.
        folder: The stage's folder; nothing is created before work starts.
        config: All that determines the results, as config_to_json takes it.
        depends_on: Stages whose output this one reads; a change of their config is a change here.
    """

    def __init__(
        self, name: str, folder: Path, config: object, *, depends_on: Sequence["Stage"] = ()
    ) -> None:
        self.name = name
        self.folder = folder
        self._described = {
            "stage": name,
            "config": config_to_json(config),
            "inputs": {stage.name: stage.fingerprint for stage in depends_on},
        }
        self._began = 0.0
        self._lock: IO[str] | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the config and of the stages that this one depends on."""
        return fingerprint(self._described)

    def is_done(self) -> bool:
        """Whether the stage was finished with this config.

        Raises:
            StageError: The folder holds work of another config; the message names the fields.
        """
        self._refuse_other_config()
        return (self.folder / DONE_FILE).is_file()

    def results(self) -> dict[str, Any]:
        """What finish() was given. Raises StageError when the stage is not finished."""
        return dict(self._done()["results"])

    def seconds(self) -> float:
        """Time spent inside the stage over all sessions. Raises StageError when not finished."""
        return float(self._done()["seconds"])

    def clear(self) -> None:
        """Delete the folder's content to start anew, for example for ``--overwrite``.

        Raises:
            StageError: The folder holds files but was not made by a stage, or another process
                works in it: it is left alone.
        """
        if not self.folder.exists():
            return
        foreign = [path.name for path in self.folder.iterdir() if path.name != _LOCK_FILE]
        if foreign and not (self.folder / CONFIG_FILE).is_file():
            raise StageError(
                f"will not overwrite {self.folder}: it has no {CONFIG_FILE}, so this program "
                "did not make it. Choose another --output-dir."
            )
        with self._take_lock():
            # Killed on the way, the folder must not look finished (the marker goes first) nor
            # lend its checkpoints to another config (config.json goes last).
            (self.folder / DONE_FILE).unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.name == CONFIG_FILE:
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            shutil.rmtree(self.folder)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Mark the stage as finished; call it inside the ``with`` block, once all is written.

        Args:
            results: JSON values, for example final metrics.

        Raises:
            StorageError: The marker could not be written; the stage is not finished.
        """
        if self._lock is None:
            raise RuntimeError(f"finish() of stage {self.name!r} outside its with block")
        done = {**self._described, "results": dict(results), "seconds": self._elapsed()}
        atomic_write_json(self.folder / DONE_FILE, done)

    def __enter__(self) -> Self:
        self._refuse_other_config()
        lock = self._take_lock()
        self._lock, self._began = lock, time.monotonic()
        if not (self.folder / CONFIG_FILE).is_file():
            atomic_write_json(self.folder / CONFIG_FILE, self._described)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            atomic_write_json(self.folder / _SECONDS_FILE, {"seconds": self._elapsed()})
        except StorageError:
            if error is None:
                raise
        finally:
            if self._lock is not None:
                self._lock.close()
            self._lock = None

    def _take_lock(self) -> IO[str]:
        """An open file whose lock the system drops when this process ends, however it ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _LOCK_FILE).open("w")
        except OSError as error:
            raise StorageError(f"cannot write in {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StageError(
                f"another process is working on stage {self.name!r} in {self.folder}; "
                "wait for it or choose another --output-dir"
            ) from error
        return lock

    def _elapsed(self) -> float:
        path = self.folder / _SECONDS_FILE
        earlier = float(read_json(path)["seconds"]) if path.is_file() else 0.0
        return earlier + time.monotonic() - self._began

    def _done(self) -> dict[str, Any]:
        if not self.is_done():
            raise StageError(f"stage {self.name!r} in {self.folder} is not finished: run it first")
        done: dict[str, Any] = read_json(self.folder / DONE_FILE)
        return done

    def _refuse_other_config(self) -> None:
        for name in (CONFIG_FILE, DONE_FILE):
            path = self.folder / name
            if not path.is_file():
                continue
            found = {key: value for key, value in read_json(path).items() if key in self._described}
            if differences := _differences(found, self._described):
                raise StageError(
                    f"{self.folder} was made with other settings of stage {self.name!r}: "
                    + "; ".join(differences)
                    + ". Use the same settings, another --output-dir, or --overwrite."
                )


def _differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as "a.b: the folder has 1, this run has 2"."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts: list[str] = []
        for key in sorted(found.keys() | wanted.keys()):
            where = f"{path}.{key}" if path else key
            parts += _differences(found.get(key), wanted.get(key), where)
        return parts
    if found == wanted:
        return []
    if path.startswith("inputs."):
        return [f"the output of stage {path.removeprefix('inputs.')!r} has changed"]
    return [f"{path.removeprefix('config.')}: the folder has {found!r}, this run has {wanted!r}"]


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
