"""The search of a static schedule: finds an optimum, keeps its budget, resumes exactly."""

import json
import math

import pytest
import torch
from adanat.static_search import StaticSearch, StaticSearchConfig
from policyrl import ActionComponent, ActionSpec, decoding_spec

PRIOR = torch.tensor([[0.9, 4.5, 1.0, 0.0], [0.5, 2.0, 0.8, 1.5], [0.0, 0.0, 1.2, 3.0]])
OPTIMUM = torch.tensor([[0.7, 2.0, 1.4, 0.0], [0.4, 1.0, 1.1, 0.5], [0.0, 0.0, 0.7, 2.0]])


def _distance(values):
    return (values - OPTIMUM).square().sum().item()


def _search(num_scores, seed=0, **changes):
    config = StaticSearchConfig(
        image_budget=100 * num_scores, images_per_score=100, seed=seed, **changes
    )
    return StaticSearch(decoding_spec(PRIOR), config)


def test_it_finds_the_optimum_of_an_analytic_objective():
    search = _search(900)
    best = search.run(_distance)
    # From 16.29 at the prior; the guidance of the first step has its optimum in the dead zone.
    assert best.score < 1e-2
    torch.testing.assert_close(best.values, OPTIMUM, rtol=0, atol=0.1)
    assert best.values[0, 3] == 0


def test_it_starts_at_the_prior_and_is_never_worse():
    search = _search(3)
    torch.testing.assert_close(search.ask(), PRIOR)
    for score in (1.0, 2.0, 3.0):
        search.tell(score)
    assert search.best.score == 1.0
    torch.testing.assert_close(search.best.values, PRIOR)


def test_inactive_entries_stay_at_the_prior():
    spec = decoding_spec(PRIOR, learned=("sampling_temperature",))
    search = StaticSearch(spec, StaticSearchConfig(image_budget=9, images_per_score=1))
    search.tell(0.0)
    values = search.ask()
    torch.testing.assert_close(values[~spec.active], PRIOR[~spec.active], rtol=0, atol=0)
    assert (values[spec.active] != PRIOR[spec.active]).all()


def test_the_budget_counts_images():
    search = StaticSearch(
        decoding_spec(PRIOR), StaticSearchConfig(image_budget=250, images_per_score=100)
    )
    calls = []
    search.run(lambda values: float(len(calls)), after_score=lambda: calls.append(1))
    assert len(calls) == 2
    assert search.num_images == 200
    assert search.is_done
    with pytest.raises(RuntimeError, match="budget of 2 scores is spent"):
        search.tell(0.0)


def test_a_resumed_search_is_the_search_never_stopped():
    whole = _search(40)
    asked = []

    def objective(values):
        asked.append(values)
        return _distance(values)

    expected = whole.run(objective)
    half = _search(40)
    for _ in range(17):  # in the middle of a generation
        half.tell(_distance(half.ask()))
    resumed = _search(40)
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert torch.equal(resumed.ask(), asked[17])
    best = resumed.run(_distance)
    assert best.score == expected.score
    assert torch.equal(best.values, expected.values)
    with pytest.raises(RuntimeError, match="has 40 scores already"):
        resumed.load_state_dict(half.state_dict())


def test_the_seed_decides_the_candidates():
    first, again, other = (_search(20, seed) for seed in (1, 1, 2))
    scores = [search.run(_distance).score for search in (first, again, other)]
    assert scores[0] == scores[1] != scores[2]


def test_bad_scores_and_settings_are_refused():
    search = _search(3)
    with pytest.raises(RuntimeError, match="no score yet"):
        _ = search.best
    with pytest.raises(ValueError, match="score of a schedule is nan"):
        search.tell(math.nan)
    with pytest.raises(ValueError, match="image_budget is 5, must allow"):
        StaticSearchConfig(image_budget=5, images_per_score=10)
    with pytest.raises(ValueError, match="images_per_score is 0"):
        StaticSearchConfig(image_budget=5, images_per_score=0)
    with pytest.raises(ValueError, match="sigma is 0"):
        StaticSearchConfig(image_budget=5, images_per_score=1, sigma=0.0)
    with pytest.raises(ValueError, match="seed is -1"):
        StaticSearchConfig(image_budget=5, images_per_score=1, seed=-1)
    frozen = ActionSpec(
        [ActionComponent(name="x", squash="identity")],
        torch.zeros(2, 1),
        torch.zeros(2, 1, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match="nothing to search"):
        StaticSearch(frozen, StaticSearchConfig(image_budget=1, images_per_score=1))
