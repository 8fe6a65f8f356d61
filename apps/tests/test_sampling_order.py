"""The order of the data: a pure function of the step."""

import pytest
import torch
from adanat.sampling_order import batch_indices
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None, max_examples=60)
@given(num_items=st.integers(1, 40), batch_size=st.integers(1, 90), seed=st.integers(0, 2**40))
def test_every_epoch_visits_each_item_once(num_items: int, batch_size: int, seed: int) -> None:
    steps = -(-3 * num_items // batch_size)
    row = torch.cat([batch_indices(num_items, batch_size, step, seed) for step in range(steps)])
    assert row.dtype == torch.int64
    for epoch in range(3):
        visited = row[epoch * num_items : (epoch + 1) * num_items]
        assert visited.sort().values.tolist() == list(range(num_items))


def test_steps_may_be_asked_in_any_order() -> None:
    forwards = [batch_indices(100, 32, step, 5) for step in range(20)]
    for step in (19, 3, 11, 0):
        assert torch.equal(batch_indices(100, 32, step, 5), forwards[step])


def test_results_are_copies_and_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    batch_indices(10, 10, 0, 1).zero_()
    assert batch_indices(10, 10, 0, 1).sort().values.tolist() == list(range(10))
    assert torch.equal(torch.get_rng_state(), before)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(batch_indices(50, 50, step, seed).tolist()) for step in (0, 1) for seed in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0, 0), "num_items must be at least 1, got 0"),
        ((1, 0, 0, 0), "batch_size must be at least 1, got 0"),
        ((1, 1, -1, 0), "step must be at least 0, got -1"),
        ((1, 1, 0, -1), "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch_indices(*arguments)
