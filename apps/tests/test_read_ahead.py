"""Reading ahead changes when a batch is read, not which."""

import threading

import pytest
from adanat.read_ahead import ReadAhead


def test_every_step_gets_its_own_batch_wherever_it_starts() -> None:
    reader = ReadAhead(lambda step: step * step, num_steps=9)
    assert [reader(step) for step in (3, 4, 5, 8)] == [9, 16, 25, 64]


def test_the_next_batch_is_read_meanwhile() -> None:
    read = [threading.Event() for _ in range(3)]
    reader = ReadAhead(lambda step: read[step].set(), num_steps=3)
    reader(0)
    assert read[1].wait(10)
    assert not read[2].is_set()


def test_nothing_is_read_beyond_the_end() -> None:
    steps: list[int] = []
    reader = ReadAhead(steps.append, num_steps=2)
    reader(0)
    reader(1)
    assert steps == [0, 1]


def test_an_error_arrives_with_its_step() -> None:
    def load(step: int) -> int:
        if step == 1:
            raise ValueError("broken")
        return step

    reader = ReadAhead(load, num_steps=3)
    assert reader(0) == 0
    with pytest.raises(ValueError, match="broken"):
        reader(1)
