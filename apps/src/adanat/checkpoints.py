"""Files that are either whole or absent: atomic writes and training checkpoints.

A checkpoint is a folder ``step-000000120/`` with ``state.pt`` and a completion marker
``complete.json``. It is built under a temporary name, synced to disk and renamed, so that a
process killed at any moment, or a full disk, leaves the earlier checkpoints as they were.
States hold tensors and builtins only and are read with ``torch.load(weights_only=True)``.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adanat.errors import StorageError

STATE_FILE = "state.pt"
MARKER_FILE = "complete.json"
BEST_LINK = "best"
_TEMPORARY_PREFIX = ".tmp-"
_STEP_FOLDER = re.compile(r"step-(\d{9,})")


class Checkpoint(NamedTuple):
    """A complete training state: ``step`` updates were done when it was saved."""

    step: int
    state: dict[str, Any]


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write(temporary_path)`` make a file, then put it at ``path`` in one move.

    Args:
        path: Where the file goes; its folder is created. An earlier file stays until the move.
        write: Creates the file at the path that it is given.

    Raises:
        StorageError: The file could not be written; ``path`` is as it was before.
    """
    temporary = path.with_name(_TEMPORARY_PREFIX + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of a process that was killed
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {_reason(error, path)}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all. Raises StorageError."""
    atomic_write(path, lambda temporary: _write_all(temporary, data))


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all. Raises StorageError."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all.

    Raises:
        StorageError: The file could not be written.
        ValueError: ``value`` holds NaN or infinity, which JSON has no word for.
    """
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: The file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def save_state(folder: Path, step: int, state: Mapping[str, Any], *, keep_last: int = 2) -> Path:
    """Save a training state and delete all but the newest ``keep_last`` (and the best) ones.

    A complete checkpoint of the same step is left as it is: training is deterministic, so it
    holds the same state.

    Args:
        folder: The folder of all checkpoints of a run; created when absent.
        step: Number of updates done, >= 0.
        state: Tensors and builtins only.
        keep_last: How many checkpoints stay, >= 1; the one marked best stays in addition.

    Returns:
        The checkpoint's folder.

    Raises:
        StorageError: It could not be written; earlier checkpoints are untouched.
    """
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    if keep_last < 1:
        raise ValueError(f"keep_last must be at least 1, got {keep_last}")
    target = _step_folder(folder, step)
    if _is_complete(target):
        return target
    temporary = folder / (_TEMPORARY_PREFIX + target.name)
    try:
        if temporary.exists():  # of a process that was killed
            _remove(temporary)
        temporary.mkdir(parents=True)
        state_file = temporary / STATE_FILE
        torch.save(dict(state), state_file)
        _sync(state_file)
        marker = {"step": step, "bytes": state_file.stat().st_size}
        _write_all(temporary / MARKER_FILE, json.dumps(marker).encode())
        _sync(temporary / MARKER_FILE)
        _sync(temporary)
        if target.exists():
            _remove(target)  # incomplete: _is_complete said so above
        os.rename(temporary, target)
        _sync(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        kept = complete_steps(folder)
        advice = f"resumes from step {kept[-1]}, which is whole" if kept else "starts again"
        raise StorageError(
            f"cannot save the checkpoint of step {step} in {folder}: {_reason(error, folder)}. "
            f"Free space or choose another --output-dir; the same command then {advice}."
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(folder, keep_last)
    return target


def latest_state(folder: Path) -> Checkpoint | None:
    """Load the newest complete checkpoint, or None when there is none.

    What an interrupted save or delete left behind is removed first.

    Raises:
        StorageError: The newest complete checkpoint is damaged; the message says what to do.
    """
    for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*") if folder.is_dir() else ():
        _remove(leftover)
    steps = complete_steps(folder)
    return _load(_step_folder(folder, steps[-1]), steps[-1]) if steps else None


def mark_best(folder: Path, step: int) -> None:
    """Point the ``best`` link at the checkpoint of ``step``, which is then never deleted.

    Raises:
        StorageError: There is no complete checkpoint of that step, or no link can be made.
    """
    target = _step_folder(folder, step)
    if not _is_complete(target):
        raise StorageError(
            f"{folder} has no complete checkpoint of step {step} to mark as best; "
            f"it has {complete_steps(folder)}"
        )
    atomic_write(folder / BEST_LINK, lambda temporary: temporary.symlink_to(target.name))


def best_state(folder: Path) -> Checkpoint | None:
    """Load the checkpoint that the ``best`` link points at, or None. Raises StorageError."""
    link = folder / BEST_LINK
    if not link.is_symlink():
        return None
    step = _step_of(folder / os.readlink(link))
    if step is None or not _is_complete(_step_folder(folder, step)):
        raise StorageError(f"{link} points at {os.readlink(link)}, which is not complete")
    return _load(_step_folder(folder, step), step)


def complete_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in ``folder``, ascending."""
    if not folder.is_dir():
        return []
    steps = ((_step_of(path), path) for path in folder.iterdir() if not path.is_symlink())
    return sorted(step for step, path in steps if step is not None and _is_complete(path))


def _load(checkpoint: Path, step: int) -> Checkpoint:
    try:
        state = torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise StorageError(
            f"{checkpoint / STATE_FILE} is damaged ({error}). Delete the folder {checkpoint} "
            "to resume from the checkpoint before it."
        ) from error
    return Checkpoint(step, state)


def _step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _step_of(path: Path) -> int | None:
    match = _STEP_FOLDER.fullmatch(path.name)
    return int(match.group(1)) if match else None


def _is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and the state has the size that the marker tells."""
    try:
        marker = json.loads((checkpoint / MARKER_FILE).read_text())
        return bool((checkpoint / STATE_FILE).stat().st_size == marker["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _prune(folder: Path, keep_last: int) -> None:
    best = folder / BEST_LINK
    best_step = _step_of(folder / os.readlink(best)) if best.is_symlink() else None
    for step in complete_steps(folder)[:-keep_last]:
        if step != best_step:
            _remove(_step_folder(folder, step))


def _remove(path: Path) -> None:
    """Delete a file or folder; a folder first loses its name, so no half of it is taken."""
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(_TEMPORARY_PREFIX):
            path = path.rename(path.with_name(f"{_TEMPORARY_PREFIX}gone-{path.name}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_all(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk; a dangling or folder link needs no sync of its own."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception, path: Path) -> str:
    """The cause in words, with the free space where it can be asked."""
    text = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
    existing = next((p for p in (path, *path.parents) if p.exists()), None)
    if existing is None:
        return text
    return f"{text} ({shutil.disk_usage(existing).free / 2**20:,.0f} MiB free on its disk)"
