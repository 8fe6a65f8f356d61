"""Action specs: ranges, priors, dead zones, inactive entries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policyrl import (
    DECODING_COMPONENTS,
    ActionComponent,
    ActionSpec,
    decoding_spec,
    published_decoding_spec,
)

PRIOR = torch.tensor([[0.9, 4.5, 1.0, 0.0], [0.5, 2.0, 0.8, 1.5], [0.0, 0.0, 1.2, 3.0]])


@settings(max_examples=40, deadline=None)
@given(
    mask=st.floats(1e-3, 1 - 1e-3),
    temperature=st.floats(1e-3, 20.0),
    guidance=st.floats(0.06, 20.0),
)
def test_a_raw_action_of_zero_gives_the_prior(mask, temperature, guidance):
    prior = torch.tensor([[mask, temperature, temperature, guidance]])
    spec = decoding_spec(prior, last_step_inert=False)
    values = spec.activate(torch.zeros(2, 4), 0)
    for i, name in enumerate(DECODING_COMPONENTS):
        torch.testing.assert_close(values[name], prior[0, i].expand(2), rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(raw=st.lists(st.floats(-30, 30), min_size=4, max_size=4), step=st.integers(0, 2))
def test_values_stay_in_range_and_rise_with_the_raw_action(raw, step):
    spec = decoding_spec(PRIOR)
    low = torch.tensor([raw])
    both = spec.activate(torch.cat([low, low + 0.5]), step)
    assert (both["mask_ratio"] >= 0).all()
    assert (both["mask_ratio"] <= 1).all()
    for name in DECODING_COMPONENTS:
        assert both[name].shape == (2,)
        assert both[name][0] >= 0
        assert both[name][1] >= both[name][0]
    guidance = both["guidance_scale"]
    assert ((guidance == 0) | (guidance >= 0.05)).all()


def test_inactive_entries_give_the_prior_exactly():
    spec = decoding_spec(PRIOR, learned=("mask_ratio", "guidance_scale"))
    raw = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 3
    for step in range(3):
        values = spec.activate(raw, step)
        for i, name in enumerate(DECODING_COMPONENTS):
            if not spec.active[step, i]:
                assert torch.equal(values[name], PRIOR[step, i].expand(5))
    assert spec.active.tolist() == [[True, False, False, True]] * 2 + [[False, False, False, True]]


def test_the_dead_zone_is_exactly_zero_and_its_prior_starts_half_way():
    spec = decoding_spec(PRIOR, guidance_dead_zone=0.05)
    assert spec.offset[0, 3].item() == pytest.approx(math.log(math.expm1(0.025)), rel=1e-6)
    assert spec.activate(torch.zeros(1, 4), 0)["guidance_scale"].item() == 0.0
    # softplus(offset + r) = 0.05 at this r; just beyond, guidance is on.
    edge = math.log(math.expm1(0.05)) - math.log(math.expm1(0.025))
    raw = torch.tensor([[0, 0, 0, edge - 1e-3], [0, 0, 0, edge + 1e-3]])
    below, above = spec.activate(raw, 0)["guidance_scale"].tolist()
    assert below == 0.0
    assert above == pytest.approx(0.05, rel=2e-3)
    assert above > 0.05


def test_timesteps_of_a_batch_may_differ():
    spec = decoding_spec(PRIOR)
    raw = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    mixed = spec.activate(raw, torch.tensor([2, 0, 1]))
    for row, step in enumerate([2, 0, 1]):
        alone = spec.activate(raw[row : row + 1], step)
        for name in DECODING_COMPONENTS:
            assert mixed[name][row] == alone[name][0]


def test_a_spec_survives_its_config():
    spec = decoding_spec(PRIOR, learned=("mask_ratio",))
    again = ActionSpec.from_config(spec.to_config())
    assert again.components == spec.components
    for name in ("prior", "active", "offset"):
        assert torch.equal(getattr(again, name), getattr(spec, name))
    assert not spec.state_dict()


def test_the_published_spec_keeps_every_entry():
    spec = published_decoding_spec(6, residual=True)
    assert spec.active.all()
    assert spec.num_steps == 6
    assert spec.names == DECODING_COMPONENTS
    neutral = published_decoding_spec(6, residual=False).activate(torch.zeros(1, 4), 3)
    assert [v.item() for v in neutral.values()] == pytest.approx([0.5] + [math.log(2)] * 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decoding_spec(PRIOR, last_step_inert=False), r"'mask_ratio' at step 2 is 0"),
        (lambda: decoding_spec(PRIOR, guidance_dead_zone=0.0), r"'guidance_scale' at step 0 is 0"),
        (lambda: decoding_spec(PRIOR, learned=("mask_ratoi",)), r"mask_ratoi"),
        (lambda: decoding_spec(PRIOR, learned=()), r"learned is \(\)"),
        (lambda: decoding_spec(PRIOR[:, :3]), r"shape \(3, 3\)"),
        (lambda: decoding_spec(PRIOR * math.nan), r"not finite"),
        (lambda: decoding_spec(PRIOR + 1), r"'mask_ratio' at step 0 is 1.9"),
        (lambda: decoding_spec(PRIOR).activate(torch.zeros(2, 3), 0), r"shape \(2, 3\)"),
        (lambda: decoding_spec(PRIOR).activate(torch.zeros(2, 4), 3), r"timestep is 3"),
        (lambda: decoding_spec(PRIOR).activate(torch.zeros(2, 4), -1), r"timestep is -1"),
        (lambda: ActionComponent(name="x", squash="tanh"), r"squash is 'tanh'"),
        (lambda: ActionComponent(name="", squash="sigmoid"), r"name is empty"),
        (lambda: ActionComponent(name="x", squash="sigmoid", dead_zone=1.0), r"dead_zone"),
        (lambda: ActionComponent(name="x", squash="softplus", dead_zone=-1.0), r"dead_zone"),
        (lambda: ActionComponent(name="x", squash="identity", dead_zone=0.1), r"dead_zone"),
        (lambda: ActionSpec([], torch.zeros(1, 0)), r"components is empty"),
        (
            lambda: ActionSpec([ActionComponent(name="x", squash="identity")] * 2, PRIOR[:, :2]),
            r"each must occur once",
        ),
        (
            lambda: ActionSpec(
                [ActionComponent(name="x", squash="identity")], PRIOR[:, :1], PRIOR[:, :1]
            ),
            r"must be bool",
        ),
    ],
)
def test_bad_specs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
