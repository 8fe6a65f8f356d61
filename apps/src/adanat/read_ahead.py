"""Reads the next batch while the current one is worked on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """``load(step)`` for steps asked for in order, each begun one step before it is needed.

    Args:
        load: Reads the batch of a step; depends on nothing but the step.
        num_steps: No step from here on is read.
    """

    def __init__(self, load: Callable[[int], T], num_steps: int) -> None:
        self._load = load
        self._num_steps = num_steps
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read ahead")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """The batch of a step. Raises what reading it has raised."""
        ready = self._next
        batch = ready[1] if ready is not None and ready[0] == step else self._submit(step)
        self._next = (step + 1, self._submit(step + 1)) if step + 1 < self._num_steps else None
        return batch.result()

    def _submit(self, step: int) -> Future[T]:
        return self._reader.submit(self._load, step)
