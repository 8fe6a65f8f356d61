"""Counted work against hand counts; ceilings are what they are called."""

from __future__ import annotations

from functools import partial, reduce

import pytest
import torch
from natbench import PRESETS, Calibration, Work, calibrate, count_work, peak_memory
from natgen import NAT
from torch import Tensor
from torch.nn import functional as F


def test_a_linear_layer_by_hand() -> None:
    layer, x = torch.nn.Linear(100, 200), torch.randn(7, 100)
    work = count_work(lambda: layer(x))
    assert work.flops == 2 * 7 * 100 * 200
    assert work.bytes == 4 * (7 * 100 + 100 * 200 + 200 + 7 * 200)


def test_views_are_free_and_copies_are_not() -> None:
    x = torch.randn(8, 16)
    assert count_work(lambda: x.t()[2:]).bytes == 0
    assert count_work(lambda: x.clone()).bytes == 2 * 4 * 8 * 16


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_forward_pass_by_formula(without_gradients: type) -> None:
    config = PRESETS["tiny"]().nat
    nat = NAT(config).eval()
    tokens, labels = torch.zeros(3, nat.seq_len, dtype=torch.int64), torch.arange(3)
    with without_gradients():
        work = count_work(lambda: nat(tokens, labels))
    length, dim, blocks = nat.seq_len + 1, config.embed_dim, config.depth + 1
    per_block = 12 * length * dim**2 + 2 * length**2 * dim
    skips = config.depth // 2 * 2 * length * dim**2
    head = nat.seq_len * (dim**2 + dim * config.codebook_size)
    assert work.flops == 3 * 2 * (blocks * per_block + skips + head)


def test_backward_counts_twice_the_forward() -> None:
    weight, x = torch.randn(20, 10, requires_grad=True), torch.randn(5, 10, requires_grad=True)
    forward = 2 * 5 * 10 * 20
    assert count_work(lambda: F.linear(x, weight).sum().backward()).flops == 3 * forward


def test_floor_is_the_sum_at_the_ceilings() -> None:
    calibration = Calibration(1e9, 1e6, 1e3)
    assert Work(2 * 10**9, 3 * 10**6, 500).floor_seconds(calibration) == pytest.approx(5.5)


def test_ceilings_are_reached_by_what_they_measure() -> None:
    calibration = calibrate(torch.device("cpu"), torch.float32, tries=2)
    assert min(calibration) > 0
    # A core makes no more than 64 operations in each of 10^10 cycles a second.
    assert calibration.flops_per_second < 64e10 * torch.get_num_threads()


CPU, META = torch.device("cpu"), torch.device("meta")


def test_peak_memory_sees_what_is_freed_again() -> None:
    before = torch.ones(1000)

    def function() -> Tensor:
        doubled = 2 * before  # 4,000 bytes
        joined = torch.cat([doubled, before])  # 8,000 more: the peak
        del doubled
        return joined.view(2, -1)[1].add_(1)  # a view and an operator in place: nothing

    assert peak_memory(function, CPU) == 12_000
    assert peak_memory(function, CPU) == 12_000  # however often memory has been used before


def test_peak_memory_sees_what_is_kept_for_the_backward_pass() -> None:
    x = torch.ones(100, device=META, requires_grad=True)

    def repeated_exp(times: int) -> None:
        reduce(lambda y, _: y.exp(), range(times), x).sum().backward()

    # Each keeps its result of 400 bytes.
    short, long = (peak_memory(partial(repeated_exp, times), META) for times in (4, 9))
    assert long - short == 5 * 400
