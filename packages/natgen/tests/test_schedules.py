"""The hand-made schedules as formulas and as policies."""

import math

import pytest
import torch
from natgen import (
    COMPONENTS,
    StaticSchedule,
    autonat_l8,
    constant,
    maskgit,
    published,
)


def test_order_of_the_components():
    assert COMPONENTS == (
        "mask_ratio",
        "remask_temperature",
        "sampling_temperature",
        "guidance_scale",
    )


def test_published_at_one_step_in_the_middle():
    row = published(4).values[1].tolist()
    rho = 1.999 / 4
    expected = [math.cos(math.pi * rho / 2), 4.5 * (1 - rho), 1.0, 3.0 * 1.001 / 4]
    assert row == pytest.approx(expected, abs=1e-6)


MASKGIT_SHAPES = {  # what is masked after the first, second, third of four steps
    "cosine": [math.cos(math.pi / 8), math.cos(math.pi / 4), math.cos(3 * math.pi / 8)],
    "linear": [0.75, 0.5, 0.25],
    "square": [15 / 16, 3 / 4, 7 / 16],
    "cubic": [63 / 64, 7 / 8, 37 / 64],
    "sqrt": [0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)],
    "exp": [63 / 64, 15 / 16, 3 / 4],  # of 256 = 4^4 tokens 4^t are revealed
    "log": [2 / 8, 1 / 8, math.log2(4 / 3) / 8],
    "arccos": [math.acos(0.25) * 2 / math.pi, 2 / 3, math.acos(0.75) * 2 / math.pi],
}


@pytest.mark.parametrize(("shape", "expected"), MASKGIT_SHAPES.items())
def test_maskgit_shapes(shape, expected):
    values = maskgit(4, shape=shape, num_tokens=256).values
    assert values[:, 0].tolist() == pytest.approx([*expected, 0.0], abs=1e-6)
    assert values[:, 1].tolist() == pytest.approx([4.5 * 3 / 4, 4.5 / 2, 4.5 / 4, 0.0])
    assert values[:, 2:].tolist() == [[1.0, 0.0]] * 4


@pytest.mark.parametrize("shape", MASKGIT_SHAPES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 300])
def test_maskgit_falls_to_zero_in_any_number_of_steps(shape, num_steps):
    ratios = maskgit(num_steps, shape=shape, num_tokens=64).values[:, 0]
    assert len(ratios) == num_steps
    assert (ratios.diff() <= 0).all()
    assert ratios[-1] == pytest.approx(0.0, abs=1e-6)


def test_bad_maskgit_shapes():
    with pytest.raises(ValueError, match=r"'cosine'.*'arccos'.*got 'sine'"):
        maskgit(4, shape="sine")
    with pytest.raises(ValueError, match=r"'log' needs num_tokens.*got None"):
        maskgit(4, shape="log")
    with pytest.raises(ValueError, match="got 1"):
        maskgit(4, shape="exp", num_tokens=1)


def test_constant_and_autonat():
    row = {
        "mask_ratio": 0.5,
        "remask_temperature": 1.0,
        "sampling_temperature": 0.75,
        "guidance_scale": 0.0,
    }
    assert constant(3, **row).values.tolist() == [[0.5, 1.0, 0.75, 0.0]] * 3
    values = autonat_l8().values
    assert values.shape == (8, 4)
    assert values[4].tolist() == pytest.approx([0.625, 1.067, 1.470, 1.616])


def test_a_schedule_is_a_policy():
    schedule = autonat_l8()
    features = torch.zeros(3, 5, 2, dtype=torch.bfloat16)
    for t in range(schedule.num_steps):
        parameters = schedule(features, t)
        assert tuple(parameters) == COMPONENTS
        stacked = torch.stack(list(parameters.values()), dim=-1)
        assert torch.equal(stacked, schedule.values[t].expand(3, 4))
    assert [schedule.guidance_free(t) for t in range(4)] == [True, True, True, False]


def test_values_do_not_alias_the_schedule():
    schedule = published(4)
    schedule.values.zero_()
    assert schedule.values[0, 0] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(4, 3), r"\(4, 3\)"),
        (torch.ones(4), r"\(4,\)"),
        (torch.ones(0, 4), r"\(0, 4\)"),
        (torch.tensor([[1.5, 1.0, 1.0, 1.0]]), "mask_ratio at step 0 is 1.5"),
        (torch.tensor([[0.5, -1.0, 1.0, 1.0]]), "remask_temperature at step 0 is -1.0"),
        (torch.tensor([[0.5, 1.0, 1.0, torch.nan]]), "guidance_scale at step 0 is nan"),
        (torch.tensor([[0.5, 1.0, torch.inf, 0.0]]), "sampling_temperature at step 0 is inf"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        StaticSchedule(values)


@pytest.mark.parametrize("make", [published, maskgit])
def test_no_steps(make):
    with pytest.raises(ValueError, match="got 0"):
        make(0)
