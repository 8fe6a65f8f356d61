"""The training loop of every stage: resume, log, save, stop on a signal."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adanat.checkpoints import atomic_write_json, latest_state, save_state
from adanat.engine import AccelerateEngine
from adanat.errors import StorageError, TrainingError
from adanat.metrics_log import MetricsLog
from adanat.progress import ProgressReporter
from adanat.seeding import derive_seed

CHECKPOINTS_FOLDER = "checkpoints"
FAILED_BATCH_FILE = "failed-batch.json"
_SHOWN_METRICS = 3


class IntervalHook(NamedTuple):
    """Something to do after every ``every``-th step and after the last one.

    ``call(step)`` gets the number of steps done; the scalars that it returns are logged. It runs
    before the checkpoint of that step is saved, so its effects on states are in the checkpoint.
    """

    every: int
    call: Callable[[int], Mapping[str, float]]


class PictureHook(NamedTuple):
    """A grid of pictures to look at, after every ``every``-th step and after the last one.

    ``draw()`` gives images (N, 3, H, W) in [0, 1]. All processes call it, because a sharded model
    needs them; the main one keeps what it drew. It must leave states and random generators as they
    are.
    """

    every: int
    name: str
    draw: Callable[[], Tensor]
    columns: int


def train_loop(
    *,
    step_fn: Callable[[int], Mapping[str, float]],
    total_steps: int,
    folder: Path,
    get_state: Callable[[], Mapping[str, Any]],
    set_state: Callable[[dict[str, Any]], None],
    description: str,
    save_every: int = 500,
    save_every_seconds: float = 300.0,
    log_every: int = 50,
    keep_last: int = 2,
    hooks: Sequence[IntervalHook] = (),
    pictures: Sequence[PictureHook] = (),
    engine: AccelerateEngine | None = None,
    batch_of: Callable[[int], Sequence[str]] | None = None,
) -> None:
    """Call ``step_fn`` for steps 0 to ``total_steps`` - 1, resuming what the folder holds.

    A run killed at any moment and started again ends as one never killed: checkpoints hold
    ``get_state()``, torch's global random states and the sums of the current logging interval,
    and ``step_fn`` must depend on nothing else but its step. Checkpoints go to
    ``folder/checkpoints``, the means over each ``log_every`` steps to ``folder/metrics.jsonl``
    and TensorBoard. A finished run does nothing but load its last state.

    On Ctrl-C or SIGTERM the current step is finished and saved, then the process exits with 130
    or 143. A second Ctrl-C stops at once; a second SIGTERM changes nothing, because Slurm sends one
    to all processes of a job and torchrun another to its workers.

    Several processes run the loop together, each step at the same time: scalars are averaged over
    them, a signal to one stops all, and the main one writes. Its checkpoint holds the random states
    of all; resumed by another number of processes, those without a state get one of their own.

    Args:
        step_fn: Does one step, given its number from 0, and returns scalars to log.
        total_steps: Number of steps, >= 1.
        folder: The stage's folder.
        get_state: The trainer's state: tensors and builtins.
        set_state: Restores what get_state gave.
        description: The stage's name in messages.
        save_every: Steps between checkpoints, >= 1.
        save_every_seconds: Save at the next step when the last save is this long ago.
        log_every: Steps between logged means, >= 1.
        keep_last: How many checkpoints stay, >= 1.
        hooks: Called at their intervals, in order.
        pictures: Drawn at their intervals.
        engine: The processes; default this one alone.
        batch_of: Names of the items of a step's batch, of all processes, to be written down when
            its loss is not finite.

    Raises:
        TrainingError: A scalar whose name contains "loss" is not finite. That step is not saved;
            the items of its batch are in ``failed-batch.json``.
        StorageError: A checkpoint or metric could not be written or read, or the processes find
            different checkpoints.
        SystemExit: A signal came; the state is saved.
    """
    for name, value in (
        ("total_steps", total_steps),
        ("save_every", save_every),
        ("log_every", log_every),
        *((f"hooks[{i}].every", hook.every) for i, hook in enumerate(hooks)),
        *((f"pictures[{i}].every", hook.every) for i, hook in enumerate(pictures)),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    engine = engine or AccelerateEngine()
    checkpoints = folder / CHECKPOINTS_FOLDER
    means = _IntervalMeans()
    step = 0
    if (checkpoint := latest_state(checkpoints)) is not None:
        step = checkpoint.step
        if step > total_steps:
            raise TrainingError(
                f"{checkpoints} is at step {step}, beyond the {total_steps} asked for. "
                "Ask for more steps, another --output-dir, or --overwrite."
            )
        try:
            set_state(checkpoint.state["trainer"])
            means.load_state_dict(checkpoint.state["means"])
            _set_random_states(checkpoint.state["random"], step, engine)
        except (KeyError, RuntimeError, ValueError) as error:
            raise StorageError(
                f"the checkpoint of step {step} in {checkpoints} does not fit this model: {error}. "
                "Start the stage anew with --overwrite, or choose another --output-dir."
            ) from error
    else:
        _give_own_random_state(step, engine)
    engine.require_equal(step, f"steps done in {checkpoints}")

    def save() -> None:
        state = {
            "trainer": dict(get_state()),
            "means": means.state_dict(),
            "random": _random_states(engine),
        }
        if log is not None:
            log.sync()
            save_state(checkpoints, step, state, keep_last=keep_last)

    def record(values: Mapping[str, float] | None) -> None:
        if log is not None and values:
            log.log(step, values)

    with ExitStack() as stack:
        received = stack.enter_context(_stop_signal())
        log = stack.enter_context(MetricsLog(folder, step)) if engine.is_main else None
        progress = stack.enter_context(
            ProgressReporter(description, total_steps, completed=step, shown=engine.is_main)
        )
        last_save = time.monotonic()
        while step < total_steps:
            try:
                values = engine.mean(step_fn(step))
                _check_finite(values)
            except FloatingPointError as error:
                written = ""
                if batch_of is not None and engine.is_main:
                    written = _write_failed_batch(folder, step, batch_of(step))
                raise TrainingError(f"{description}, step {step}: {error}.{written}") from error
            step += 1
            means.add(values)
            last = step == total_steps
            shown = means.pop() if last or step % log_every == 0 else None
            record(shown)
            for hook in hooks:
                if last or step % hook.every == 0:
                    record(hook.call(step))
            for picture in pictures:
                if last or step % picture.every == 0:
                    images = picture.draw().float().cpu()
                    if log is not None:
                        log.picture(step, picture.name, images, columns=picture.columns)
            progress.advance(values=_first(shown))
            overdue = time.monotonic() - last_save >= save_every_seconds
            number = engine.largest(received[0] if received else 0)
            if last or step % save_every == 0 or engine.largest(overdue) or number:
                save()
                last_save = time.monotonic()
            if number:
                if not last:
                    print(f"{description}: stopped, step {step} is saved", file=sys.stderr)
                engine.wait()  # until the checkpoint is on the disk
                raise SystemExit(128 + number)


class _IntervalMeans:
    """Means of finite scalars since the last pop; saved, so that resuming keeps the interval."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            finite = math.isfinite(value)
            self._sums[name] = self._sums.get(name, 0.0) + (float(value) if finite else 0.0)
            self._counts[name] = self._counts.get(name, 0) + finite

    def pop(self) -> dict[str, float]:
        means = {
            name: total / self._counts[name] if self._counts[name] else math.nan
            for name, total in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def _first(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else dict(list(values.items())[:_SHOWN_METRICS])


def _check_finite(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if "loss" in name and not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value}; this step is not saved. Lower the learning rate or clip "
                "gradients, and start again with --overwrite"
            )


def _write_failed_batch(folder: Path, step: int, items: Sequence[str]) -> str:
    """Keep which items the step saw; returns where, for the message."""
    path = folder / FAILED_BATCH_FILE
    atomic_write_json(path, {"step": step, "items": items})
    return f" The items of its batch are in {path}."


def _random_states(engine: AccelerateEngine) -> dict[str, Any]:
    """The global generators of every process, one a row."""
    states = {"cpu": engine.gather(torch.get_rng_state()[None])}
    if engine.device.type == "cuda":
        states["cuda"] = engine.gather(torch.cuda.get_rng_state(engine.device)[None])
    return states


def _give_own_random_state(step: int, engine: AccelerateEngine) -> None:
    """Let other processes than the main one not drop out the same activations as that one."""
    if not engine.is_main:
        torch.manual_seed(derive_seed(step, "process", engine.process_index))


def _set_random_states(states: Mapping[str, Any], step: int, engine: AccelerateEngine) -> None:
    if engine.process_index >= len(states["cpu"]):  # it was saved by fewer processes
        _give_own_random_state(step, engine)
        return
    # Copied, because torch reads a state from the start of its tensor's storage.
    torch.set_rng_state(states["cpu"][engine.process_index].clone())
    if "cuda" in states and engine.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"][engine.process_index].clone(), engine.device)


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that it yields; a second SIGINT acts at once."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        if not received:
            print("stopping after this step; Ctrl-C stops at once", file=sys.stderr)
        received.append(number)
        signal.signal(signal.SIGINT, earlier[signal.SIGINT])

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield received
        return
    earlier = {each: signal.signal(each, note) for each in signals}
    try:
        yield received
    finally:
        for each in signals:
            signal.signal(each, earlier[each])
