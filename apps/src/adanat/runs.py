"""Bookkeeping of stages: what a folder was made with, and whether it is finished."""

import dataclasses
import enum
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from adanat.checkpoints import atomic_write_json, read_json
from adanat.errors import StageError, StorageError

CONFIG_FILE = "config.json"
DONE_FILE = "done.json"
_LOCK_FILE = ".lock"
_SECONDS_FILE = "seconds.json"
_LONGEST_DELAY = 90.0
"""Seconds after which even a network disk shows a file that another node has written."""


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


class Processes(Protocol):
    """What a stage asks of the processes that work on it together."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        ...

    def wait(self) -> None:
        """Return when all processes have come here."""
        ...


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

    A training may be made longer: with a larger number under a name in ``lengths`` a folder is
    taken for one whose work is unfinished.

    Of several processes the main one locks and writes; all enter and leave the block together.

    Args:
        name: The stage's name in messages.
        folder: The stage's folder; nothing is created before work starts.
        config: All that determines the results, as config_to_json takes it.
        depends_on: Stages whose output this one reads; a change of their config is a change here.
        lengths: Numbers of the config, such as "policy.num_updates", that only end the work.
        processes: Those that work on the stage; None: this one alone.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        config: object,
        *,
        depends_on: Sequence["Stage"] = (),
        lengths: Collection[str] = (),
        processes: Processes | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self._processes = processes
        self._lengths = frozenset(f"config.{name}" for name in lengths)
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
        return self._holds_this(DONE_FILE)

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
        if not self._writes:
            return
        if self._lock is None:
            raise RuntimeError(f"finish() of stage {self.name!r} outside its with block")
        done = {**self._described, "results": dict(results), "seconds": self._elapsed()}
        atomic_write_json(self.folder / DONE_FILE, done)

    def __enter__(self) -> Self:
        self._refuse_other_config()
        if self._processes is not None:
            self._processes.wait()  # or one could finish while another still asks is_done()
        if not self._writes:
            return self
        lock = self._take_lock()
        self._lock, self._began = lock, time.monotonic()
        if not self._holds_this(CONFIG_FILE):  # new, or to be made longer
            (self.folder / DONE_FILE).unlink(missing_ok=True)
            atomic_write_json(self.folder / CONFIG_FILE, self._described)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._writes:
                atomic_write_json(self.folder / _SECONDS_FILE, {"seconds": self._elapsed()})
        except StorageError:
            if error is None:
                raise
        finally:
            if self._lock is not None:
                self._lock.close()
            self._lock = None
        if self._processes is not None and error is None:
            self._processes.wait()  # for what the main one has written
            self._wait_until_seen()

    @property
    def _writes(self) -> bool:
        return self._processes is None or self._processes.is_main

    def _wait_until_seen(self) -> None:
        """Return when this process, too, sees that the stage is done: network disks are late."""
        until = time.monotonic() + _LONGEST_DELAY
        while not (self.folder / DONE_FILE).is_file() and time.monotonic() < until:
            time.sleep(0.1)

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
            if not isinstance(error, BlockingIOError):
                raise StorageError(
                    f"cannot lock {self.folder} against other processes: {error.strerror}. Choose "
                    "an --output-dir whose disk has file locks (Lustre: mounted with flock)."
                ) from error
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
            found = self._read_description(name)
            if found and (differences := _differences(found, self._described, self._lengths)):
                raise StageError(
                    f"{self.folder} was made with other settings of stage {self.name!r}: "
                    + "; ".join(differences)
                    + ". Use the same settings, another --output-dir, or --overwrite."
                )

    def _holds_this(self, name: str) -> bool:
        return self._read_description(name) == self._described

    def _read_description(self, name: str) -> dict[str, Any]:
        """What a file of the folder says that it was made with; nothing without the file."""
        path = self.folder / name
        if not path.is_file():
            return {}
        return {key: value for key, value in read_json(path).items() if key in self._described}


def refuse_stale(stage: Path, folder_of: Callable[[str], Path]) -> None:
    """See that the inputs of a finished stage, and theirs, are still those that it was made from.

    What a folder does not say is passed over.

    Args:
        stage: The stage's folder.
        folder_of: The folder of an input by the input's name.

    Raises:
        StageError: An input was made anew since.
    """
    path = stage / DONE_FILE
    inputs = read_json(path).get("inputs", {}) if path.is_file() else {}
    for name, known in inputs.items():
        folder = folder_of(name)
        if (folder / DONE_FILE).is_file():
            made = read_json(folder / DONE_FILE)
            found = {key: made.get(key) for key in ("stage", "config", "inputs")}
            if fingerprint(found) != known:
                raise StageError(
                    f"{stage} was made from another {folder} than is there now: make it anew "
                    "(--overwrite)"
                )
        refuse_stale(folder, folder_of)


def _differences(
    found: Any, wanted: Any, lengths: Collection[str] = (), path: str = ""
) -> list[str]:
    """Where two JSON values differ, as "a.b: the folder has 1, this run has 2".

    Of the numbers at the paths ``lengths`` a larger one is wanted: that is no difference.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts: list[str] = []
        for key in sorted(found.keys() | wanted.keys()):
            where = f"{path}.{key}" if path else key
            parts += _differences(found.get(key), wanted.get(key), lengths, where)
        return parts
    grows = path in lengths and isinstance(found, int) and isinstance(wanted, int)
    if found == wanted or (grows and found < wanted):
        return []
    if path.startswith("inputs."):
        return [f"the output of stage {path.removeprefix('inputs.')!r} has changed"]
    return [f"{path.removeprefix('config.')}: the folder has {found!r}, this run has {wanted!r}"]
