"""Precision and processes of a run: what the trainers of all libraries ask for, by accelerate.

`accelerate launch` or `torchrun` start the processes; without either there is one. Each trainer
keeps its own model and calls whatever it likes of it, so gradients are averaged after the backward
pass instead of by a wrapper around the model: buckets of them, in the order of the parameters, as
many bytes as DistributedDataParallel would send. All processes hold the same weights throughout,
or each a part of them, where a model is sharded.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from adanat.errors import StorageError

Precision = Literal["no", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("no", "bf16")
_BUCKET_BYTES = 64 * 2**20
_LONGEST_STEP = timedelta(hours=1)  # until all processes have come to an exchange, a save included
_LONGEST_WAIT = timedelta(days=2)  # for what one process does while the others wait


class AccelerateEngine:
    """One process of a run, and its ties to the others.

    Args:
        precision: ``no`` for the parameters' own, ``bf16`` for autocast in forward passes.
        timeout: After which a process that does not come to an exchange counts as lost, and the
            others end, for torchrun to start all again. `wait` has more patience.

    Raises:
        ValueError: An unknown precision.
    """

    def __init__(self, precision: Precision = "no", *, timeout: timedelta = _LONGEST_STEP) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
        _join_processes(timeout)
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # or it would ignore the processes there
            mixed_precision=precision,
        )
        self._waiting = _patient_group()
        self._followed: list[nn.Parameter] = []
        self._touched: set[nn.Parameter] = set()

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self._accelerator.device
        return device if device.type != "cpu" else torch.device("cpu")  # not cpu:0

    @property
    def num_processes(self) -> int:
        """How many processes work together."""
        return int(self._accelerator.num_processes)

    @property
    def process_index(self) -> int:
        """Which of them this one is; 0 writes the files."""
        return int(self._accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.process_index == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Forward passes in the chosen precision."""
        context: AbstractContextManager[object] = self._accelerator.autocast()
        return context

    def follow(self, *modules: nn.Module) -> None:
        """Give these modules process 0's weights and average their gradients from now on.

        Every module that a trainer changes must be named once, in the same order everywhere.
        """
        if self.num_processes == 1:
            return
        _broadcast(modules)
        for module in modules:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._touched.add)
                    self._followed.append(parameter)

    def shard(self, *modules: nn.Module, optimizer: Optimizer, unit: type[nn.Module]) -> None:
        """In place of `follow`: spread process 0's weights over the processes; see `sharding`.

        Args:
            modules: A model and, for example, its moving average.
            optimizer: Of parameters of these modules, before its first step.
            unit: Modules of this class are gathered one by one in forward and backward passes.
        """
        if self.num_processes == 1:
            return
        from adanat.sharding import shard  # half a second, which few commands need

        _broadcast(modules)
        mesh = init_device_mesh(self.device.type, (self.num_processes,))
        shard(modules, optimizer, unit, mesh)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss, averaged over the processes.

        What had been accumulated before is equal everywhere, so averaging it again changes nothing.
        """
        self._touched.clear()
        self._accelerator.backward(loss)
        touched = (p for p in self._followed if p in self._touched)
        gradients = [p.grad for p in touched if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = _flatten_dense_tensors(bucket)
            torch.distributed.all_reduce(flat)
            flat /= self.num_processes
            for gradient, mean in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                gradient.copy_(mean)

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate over the processes in their order: (n, ...) -> (P * n, ...)."""
        if self.num_processes == 1:
            return tensor
        there = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(there) for _ in range(self.num_processes)]
        torch.distributed.all_gather(parts, there)
        return torch.cat(parts).to(tensor.device)

    def rows(self, count: int) -> slice:
        """This process's part of ``count`` rows, the n-th of equal parts.

        Raises:
            ValueError: They cannot be shared equally.
        """
        if count % self.num_processes:
            raise ValueError(
                f"a batch of {count} cannot be shared equally by {self.num_processes} processes: "
                "choose a multiple"
            )
        share = count // self.num_processes
        return slice(self.process_index * share, (self.process_index + 1) * share)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean over the processes of scalars that all of them have, by name."""
        if self.num_processes == 1:
            return dict(values)
        row = torch.tensor([list(values.values())], dtype=torch.float64)
        return dict(zip(values, self.gather(row).mean(dim=0).tolist(), strict=True))

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        return int(self.gather(torch.tensor([int(number)])).max())

    def require_equal(self, number: int, what: str) -> None:
        """Make sure that all processes have read the same from the run folder.

        Args:
            number: How much there is, such as the step of a checkpoint.
            what: What it counts and where that lies, for the message.

        Raises:
            StorageError: Another process has found more.
        """
        if (largest := self.largest(number)) != number:
            raise StorageError(
                f"process {self.process_index} finds {number} {what}, another one {largest}: "
                "put --output-dir on a disk that all nodes share"
            )

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others, to whom it leaves files."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def wait(self) -> None:
        """Return when all processes have come here, however long one of them works alone."""
        if self._waiting is not None:
            devices = [self.device.index] if self.device.type == "cuda" else None
            torch.distributed.barrier(self._waiting, device_ids=devices)

    def close(self) -> None:
        """Leave the other processes, when the work is done."""
        if torch.distributed.is_initialized():
            self.wait()
            torch.distributed.destroy_process_group()


def _join_processes(timeout: timedelta) -> None:
    """Start the process group that torchrun or `accelerate launch` describe in the environment.

    torchrun keeps its key-value store over restarts. Without a prefix of its own, an attempt would
    read the addresses that the processes of the one before have left there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.distributed.is_initialized():
        return
    store, rank, world_size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(f"attempt-{attempt}", store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )


def _patient_group() -> ProcessGroup | None:
    """All processes once more, for `AccelerateEngine.wait`; None where there is one."""
    if not torch.distributed.is_initialized():
        return None
    return cast(ProcessGroup, torch.distributed.new_group(timeout=_LONGEST_WAIT))


def _broadcast(modules: Iterable[nn.Module]) -> None:
    """Give these modules process 0's weights."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)


def _buckets(gradients: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Gradients of one type in groups of about ``_BUCKET_BYTES``."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (
            gradient.dtype != bucket[0].dtype
            or sum(g.numel() * g.element_size() for g in bucket) > _BUCKET_BYTES
        ):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
