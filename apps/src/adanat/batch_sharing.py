"""Batches of consecutive rows, shared by processes: each does some, all get the results in order.

Of P processes, process p does the batches p, p + P, p + 2 P and so on.
"""

import torch
from torch import Tensor

from adanat.engine import AccelerateEngine


def own_spans(engine: AccelerateEngine, num_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """This process's batches of rows 0 to `num_rows` - 1, as (start, end).

    A process for which none is left does the last one too, so that all know what a result looks
    like; `gather_rows` drops what it made.
    """
    spans = [(a, min(a + batch_size, num_rows)) for a in range(0, num_rows, batch_size)]
    return spans[engine.process_index :: engine.num_processes] or spans[-1:]


def gather_rows(engine: AccelerateEngine, own: Tensor, num_rows: int, batch_size: int) -> Tensor:
    """All rows, in order, on every process.

    Args:
        engine: the processes; all must call this together.
        own: (n, ...) results of the rows in this process's `own_spans`, one behind the other.
        num_rows: how many rows there are in all.
        batch_size: as given to `own_spans`.

    Returns:
        (num_rows, ...).
    """
    if engine.num_processes == 1:
        return own
    num_batches = -(-num_rows // batch_size)
    share = -(-num_batches // engine.num_processes)
    padded = own.new_zeros((share * batch_size, *own.shape[1:]))
    padded[: len(own)] = own
    by_process = engine.gather(padded).unflatten(0, (engine.num_processes, share, batch_size))
    ordered: Tensor = by_process.transpose(0, 1).flatten(0, 2)
    return ordered[:num_rows]


def own_share(engine: AccelerateEngine, rows: Tensor) -> Tensor:
    """This process's part of the numbers of a batch's rows, as many in each process.

    Where they cannot be shared equally, the last row is repeated: the first n of what
    `engine.gather` joins are the rows' own.

    Args:
        engine: the processes.
        rows: (n,) int64, at least one.
    """
    share = -(-len(rows) // engine.num_processes)
    repeated = rows[-1:].expand(share * engine.num_processes - len(rows))
    shares: tuple[Tensor, ...] = torch.cat([rows, repeated]).split(share)
    return shares[engine.process_index]
