"""How processes share a batch."""

from dataclasses import dataclass

import pytest
import torch
from adanat.batch_sharing import own_share


@dataclass
class Process:
    """One of several, as far as sharing asks."""

    process_index: int
    num_processes: int


@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_shares_join_to_the_rows(num_processes: int, count: int) -> None:
    rows = torch.arange(10, 10 + count)
    shares = [own_share(Process(index, num_processes), rows) for index in range(num_processes)]
    assert len({len(share) for share in shares}) == 1
    joined = torch.cat(shares)
    assert torch.equal(joined[:count], rows)
    assert len(joined) < count + num_processes
    assert (joined[count:] == rows[-1]).all()
