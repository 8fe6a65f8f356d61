"""The processes of one evaluation, as torchrun starts them; one process without it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: From 0; the first one writes the results.
        count: How many share the work.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Return once all have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the group that torchrun describes in the environment; work is shared through files."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    # After an interruption one may have all the work left, and the others wait for it.
    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def choose_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
