"""The stage `search-static`: its budget, its record, and that it resumes to the same schedule."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adanat.checkpoints import atomic_write_json, read_json
from adanat.contestants import STATIC_SEARCHED, describe, searched_schedule
from adanat.engine import AccelerateEngine
from adanat.errors import StageError, StorageError
from adanat.judge import LITE2, Judge, Sampled
from adanat.metrics import Reference
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.stages import search_more_steps, search_static, search_static_if_included
from natgen import StaticSchedule
from numpy.random import default_rng


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose images are features: the further from guidance 0 and temperature 1, the worse."""
    run = Run(get_recipe("tiny"), tmp_path / "run")
    best = {"num_steps": 4, "remask_temperature": 2.0, "sampling_temperature": 1.0,
            "guidance_scale": 1.0}  # fmt: skip
    with run.stages.schedule:
        run.stages.schedule.finish({"best": best})
    base = default_rng(0).normal(size=(64, 4)).astype("float32")

    def sample(self: Judge, policy: StaticSchedule, **_: object) -> Sampled:
        shift = policy.values[:, 2].mean().item() - 1.5
        return Sampled({LITE2: base + shift}, torch.empty(0), None, torch.empty(0))

    monkeypatch.setattr(Judge, "__init__", lambda self, run: None)
    monkeypatch.setattr(Judge, "references", lambda self, split: {LITE2: Reference(features=base)})
    monkeypatch.setattr(Judge, "sample", sample)
    return run


def test_it_improves_within_the_budget_of_a_policy(run: Run) -> None:
    search_static(run)
    found = run.stages.static_search.results()
    assert found["num_images"] == run.recipe.images_per_policy == 160
    assert found["num_scores"] == 4
    assert found["lite2_fd"] < found["lite2_fd_of_tuned"]
    schedule = searched_schedule(run)
    assert schedule.values.shape == (4, 4)
    shift = schedule.values[:, 2].mean().item() - 1.5
    assert found["lite2_fd"] == pytest.approx(4 * shift**2, abs=1e-4)


def test_a_search_that_was_stopped_ends_as_one_that_was_not(run: Run, tmp_path: Path) -> None:
    search_static(run)
    scores = read_json(run.folder.static_search / "measured.json")["scores"]
    whole = run.stages.static_search.results()
    stage = run.stages.static_search
    stage.clear()
    atomic_write_json(stage.folder / "measured.json", {"scores": scores[:2]})
    search_static(run)
    assert run.stages.static_search.results() == whole
    assert json.loads((stage.folder / "measured.json").read_text()) == {"scores": scores}


def test_it_is_part_of_a_run_only_where_the_recipe_says_so(run: Run) -> None:
    search_static_if_included(run)
    assert not run.stages.static_search.is_done()
    assert "search-static" not in run.stages.in_order()
    with pytest.raises(StageError, match=r"run `adanat search-static tiny"):
        searched_schedule(run)


def test_it_has_a_name_in_tables() -> None:
    assert "gradients" in describe(STATIC_SEARCHED)


@pytest.mark.parametrize("search", [search_static, search_more_steps])
def test_processes_that_read_different_scores_are_refused(
    run: Run, search: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccelerateEngine, "largest", lambda self, number: max(number, 3))
    with pytest.raises(StorageError, match=r"finds 0 scores in .*measured.json, another one 3"):
        search(run)
