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
        assert torch.equal(values[name], prior[0, i].expand(2))


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


def test_a_mask_ratio_in_the_dead_zone_reveals_everything():
    spec = decoding_spec(PRIOR, mask_ratio_dead_zone=0.45)  # close under the prior 0.5 of step 1
    edge = math.log(0.45 / 0.55) - math.log(0.5 / 0.5)
    raw = torch.zeros(3, 4)
    raw[:, 0] = torch.tensor([edge - 1e-3, 0.0, edge + 1e-3])
    below, prior, above = spec.activate(raw, 1)["mask_ratio"].tolist()
    assert below == 0.0
    assert prior == 0.5
    assert 0.45 < above < 0.451
    again = ActionSpec.from_config(spec.to_config())
    assert again.components == spec.components
    # A prior inside the zone is a 0 that exploration can leave.
    low = decoding_spec(PRIOR, mask_ratio_dead_zone=0.6)
    assert low.activate(torch.zeros(1, 4), 1)["mask_ratio"].item() == 0.0
    assert low.activate(torch.full((1, 4), 2.0), 1)["mask_ratio"].item() > 0.6


@pytest.mark.parametrize(
    ("squash", "bounds", "extremes"),
    [
        ("sigmoid", (-2.0, 3.0), (-2.0, 3.0)),
        ("softplus", (0.5, 4.0), (0.5, 4.0)),
        ("identity", (-1.0, 1.0), (-1.0, 1.0)),
    ],
)
def test_values_stay_inside_their_bounds(squash, bounds, extremes):
    component = ActionComponent(name="x", squash=squash, bounds=bounds)
    prior = torch.tensor([[0.75]])
    spec = ActionSpec([component], prior)
    raw = torch.tensor([[-50.0], [0.0], [50.0]])
    low, middle, high = spec.activate(raw, 0)["x"].tolist()
    assert (low, high) == pytest.approx(extremes, abs=1e-6)
    assert middle == pytest.approx(0.75, rel=1e-6)
    again = ActionSpec.from_config(spec.to_config())
    assert again.components == spec.components


def test_a_dead_zone_may_lie_inside_bounds():
    component = ActionComponent(name="x", squash="sigmoid", bounds=(0.0, 10.0), dead_zone=0.5)
    spec = ActionSpec([component], torch.tensor([[0.0]]))
    # sigmoid(offset) = 0.025, the middle of the zone in the stretched range.
    assert spec.offset.item() == pytest.approx(math.log(0.025 / 0.975), rel=1e-6)
    assert spec.activate(torch.zeros(1, 1), 0)["x"].item() == 0.0
    assert spec.activate(torch.full((1, 1), 0.8), 0)["x"].item() > 0.5


@settings(max_examples=30, deadline=None)
@given(smoothing=st.floats(0, 0.95), seed=st.integers(0, 10**6))
def test_smoothing_is_adagens_with_an_inverse_smoothed_prior(smoothing, seed):
    """a_t = s a_(t-1) + (1 - s) (raw_t + p_t), p_t = (offset_t - s offset_(t-1)) / (1 - s)."""
    spec = decoding_spec(PRIOR, smoothing=smoothing, guidance_dead_zone=0.05)
    raw = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed)).double()
    offset = spec.offset.double()
    previous, before = torch.zeros(2, 4), torch.zeros(4)
    action = torch.zeros(2, 4).double()
    for t in range(3):
        inverted = (offset[t] - smoothing * before) / (1 - smoothing)
        action = smoothing * action + (1 - smoothing) * (raw[t] + inverted)
        before = offset[t]
        previous = spec.smooth(raw[t].float(), previous)
        values = spec.activate(previous, t)
        for i, component in enumerate(spec.components):
            if spec.active[t, i]:
                expected = component.activate(action[:, i]).float()
                torch.testing.assert_close(values[component.name], expected, rtol=1e-4, atol=1e-4)


def test_an_untrained_smoothed_policy_has_the_schedule_exactly():
    plain, smoothed = decoding_spec(PRIOR), decoding_spec(PRIOR, smoothing=0.8)
    previous = torch.zeros(2, 4)
    for t in range(3):
        previous = smoothed.smooth(torch.zeros(2, 4), previous)
        values, expected = smoothed.activate(previous, t), plain.activate(torch.zeros(2, 4), t)
        for i, name in enumerate(DECODING_COMPONENTS):
            assert torch.equal(values[name], expected[name])
            assert torch.equal(values[name], PRIOR[t, i].expand(2))
    assert smoothed.activate(previous, 0)["guidance_scale"].tolist() == [0.0, 0.0]
    assert ActionSpec.from_config(smoothed.to_config()).smoothing == 0.8


def test_without_smoothing_an_action_is_the_raw_one():
    raw, previous = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decoding_spec(PRIOR).smooth(raw, previous), raw)


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
        (lambda: decoding_spec(PRIOR, smoothing=1.0), r"smoothing is 1.0"),
        (lambda: decoding_spec(PRIOR, smoothing=-0.1), r"smoothing is -0.1"),
        (
            lambda: ActionComponent(name="x", squash="softplus", bounds=(-1.0, 1.0)),
            r"bounds of 'x' are \(-1.0, 1.0\), must be finite with 0 <= low < high",
        ),
        (
            lambda: ActionComponent(name="x", squash="sigmoid", bounds=(1.0, 1.0)),
            r"must be finite with low < high",
        ),
        (
            lambda: ActionComponent(name="x", squash="identity", bounds=(0.0, math.inf)),
            r"must be finite",
        ),
        (
            lambda: ActionComponent(name="x", squash="sigmoid", bounds=(1.0, 2.0), dead_zone=1.5),
            r"dead_zone .* range is \(1, 2\)",
        ),
        (
            lambda: ActionSpec(
                [ActionComponent(name="x", squash="identity", bounds=(0.0, 1.0))],
                torch.tensor([[1.5]]),
            ),
            r"'x' at step 0 is 1.5, but it reaches only values inside \(0.0, 1.0\)",
        ),
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
