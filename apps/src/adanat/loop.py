"""The training loop of every stage: resume, log, save, stop on a signal."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

from adanat.checkpoints import latest_state, save_state
from adanat.errors import StorageError, TrainingError
from adanat.progress import ProgressReporter
from adanat.runs import MetricsLog

CHECKPOINTS_FOLDER = "checkpoints"
_SHOWN_METRICS = 3


class IntervalHook(NamedTuple):
    """Something to do after every ``every``-th step and after the last one.

    ``call(step)`` gets the number of steps done; the scalars that it returns are logged. It runs
    before the checkpoint of that step is saved, so its effects on states are in the checkpoint.
    """

    every: int
    call: Callable[[int], Mapping[str, float]]


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
) -> None:
    """Call ``step_fn`` for steps 0 to ``total_steps`` - 1, resuming what the folder holds.

    A run killed at any moment and started again ends as one never killed: checkpoints hold
    ``get_state()``, torch's global random states and the sums of the current logging interval,
    and ``step_fn`` must depend on nothing else but its step. Checkpoints go to
    ``folder/checkpoints``, the means over each ``log_every`` steps to ``folder/metrics.jsonl``
    and TensorBoard. A finished run does nothing but load its last state.

    On Ctrl-C or SIGTERM the current step is finished and saved, then the process exits with 130
    or 143; a second signal stops at once.

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

    Raises:
        TrainingError: A scalar whose name contains "loss" is not finite. That step is not saved.
        StorageError: A checkpoint or metric could not be written or read.
        SystemExit: A signal came; the state is saved.
    """
    for name, value in (
        ("total_steps", total_steps),
        ("save_every", save_every),
        ("log_every", log_every),
        *((f"hooks[{i}].every", hook.every) for i, hook in enumerate(hooks)),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
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
            _set_random_states(checkpoint.state["random"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise StorageError(
                f"the checkpoint of step {step} in {checkpoints} does not fit this model: {error}. "
                "Start the stage anew with --overwrite, or choose another --output-dir."
            ) from error

    def save() -> None:
        log.sync()
        state = {
            "trainer": dict(get_state()),
            "means": means.state_dict(),
            "random": _random_states(),
        }
        save_state(checkpoints, step, state, keep_last=keep_last)

    with (
        _stop_signal() as received,
        MetricsLog(folder, step) as log,
        ProgressReporter(description, total_steps, completed=step) as progress,
    ):
        last_save = time.monotonic()
        while step < total_steps:
            try:
                values = step_fn(step)
            except FloatingPointError as error:
                raise TrainingError(f"{description}, step {step}: {error}") from error
            _check_finite(values, step, description)
            step += 1
            means.add(values)
            last = step == total_steps
            shown = None
            if last or step % log_every == 0:
                shown = means.pop()
                log.log(step, shown)
            for hook in hooks:
                if (last or step % hook.every == 0) and (extra := hook.call(step)):
                    log.log(step, extra)
            progress.advance(values=_first(shown))
            overdue = time.monotonic() - last_save >= save_every_seconds
            if last or step % save_every == 0 or overdue or received:
                save()
                last_save = time.monotonic()
            if received and not last:
                number = received[0]
                print(f"{description}: stopped, step {step} is saved", file=sys.stderr)
                raise SystemExit(128 + number)
        if received:
            raise SystemExit(128 + received[0])


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


def _check_finite(values: Mapping[str, float], step: int, description: str) -> None:
    for name, value in values.items():
        if "loss" in name and not math.isfinite(value):
            raise TrainingError(
                f"{description}: {name} is {value} at step {step}. This step is not saved; "
                "lower the learning rate or clip gradients, and start again with --overwrite."
            )


def _random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that it yields; a second one acts at once."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        print("stopping after this step; once more stops at once", file=sys.stderr)
        for each in signals:
            signal.signal(each, earlier[each])

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield received
        return
    earlier = {each: signal.signal(each, note) for each in signals}
    try:
        yield received
    finally:
        for each in signals:
            signal.signal(each, earlier[each])
