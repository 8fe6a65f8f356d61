"""What a run's stages take for the same work, and what they refuse as another's."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from adanat.errors import StageError
from adanat.evaluation.comparison import read_entries
from adanat.evaluation.models import load_policy
from adanat.prepare.index import INDEX_FILE
from adanat.recipes import get_recipe
from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks import BENCHMARKS, smoke
from adanat.recipes.benchmarks.smoke import prepare_stand_in
from adanat.run import Run, StageGraph, evenly
from adanat.stages import prepare_data
from hypothesis import given
from hypothesis import strategies as st

Change = Callable[[Recipe], Recipe]


def stages(recipe: Recipe) -> StageGraph:
    return Run(recipe, Path("unused")).stages


def on_host(recipe: Recipe) -> Recipe:
    ppo = replace(recipe.policy.ppo, chunk_size=3)
    return replace(recipe, policy=replace(recipe.policy, features_on_host=True, ppo=ppo))


def in_parts(recipe: Recipe) -> Recipe:
    training = replace(
        recipe.generator.training, accumulation_steps=2, activation_checkpointing=True
    )
    return replace(recipe, generator=replace(recipe.generator, training=training))


@pytest.mark.parametrize("change", [on_host, in_parts])
def test_what_saves_memory_may_change_when_a_training_goes_on(change: Change) -> None:
    recipe = get_recipe("tiny")
    before, after = (stages(r).evaluation.fingerprint for r in (recipe, change(recipe)))
    assert before == after


def test_distances_to_fewer_real_images_are_others() -> None:
    recipe = get_recipe("tiny")
    fewer = replace(recipe, evaluation=replace(recipe.evaluation, num_reference=50))
    for name in ("schedule", "static_search", "more_steps", "evaluation"):
        before, after = (getattr(stages(r), name).fingerprint for r in (recipe, fewer))
        assert before != after, name
    assert stages(recipe).generator.fingerprint == stages(fewer).generator.fingerprint


def test_a_run_sees_that_its_data_were_divided_anew(tmp_path: Path) -> None:
    recipe = smoke(BENCHMARKS["in256"](), depth=2)
    data = prepare_stand_in(recipe, tmp_path / "stand-in")
    run = Run(recipe, tmp_path / "run", data)
    prepare_data(run)
    assert len(run.images("fit").labels) > 0
    index = json.loads((data / INDEX_FILE).read_text())
    index["splits"]["fit"] -= 1
    (data / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(StageError, match="holds other samples or another division of them"):
        run.images("fit")


def test_schedules_of_another_transformer_are_refused(tmp_path: Path) -> None:
    recipe = get_recipe("tiny")

    def trained_for(total_steps: int) -> Run:
        training = replace(
            recipe.generator.training, total_steps=total_steps, lr_schedule="constant"
        )
        generator = replace(recipe.generator, training=training)
        return Run(replace(recipe, generator=generator), tmp_path)

    run = trained_for(10)
    best = {"num_steps": 3, "remask_temperature": 1.0}
    best |= {"sampling_temperature": 1.0, "guidance_scale": 2.0}
    for stage, results in ((run.stages.generator, {}), (run.stages.schedule, {"best": best})):
        with stage:
            stage.finish(results)
    tuned = (run.folder, "static_tuned", None, torch.device("cpu"))
    assert load_policy(*tuned).num_steps == 3
    with trained_for(11).stages.generator as longer:
        longer.finish({})
    with pytest.raises(StageError, match=r"schedule was made from another .*generator than is"):
        load_policy(*tuned)


def test_an_evaluation_of_other_policies_is_not_compared(tmp_path: Path) -> None:
    folder = Run(get_recipe("tiny"), tmp_path).folder
    for path, inputs in ((folder.policy(3), {}), (folder.evaluation, {"train-policy-3": "0" * 16})):
        path.mkdir(parents=True)
        done = {"stage": path.name, "config": {}, "inputs": inputs, "results": {}}
        (path / "done.json").write_text(json.dumps(done))
    with pytest.raises(StageError, match=r"evaluation was made from another .*seed-3 than is"):
        read_entries([tmp_path])


@given(st.integers(1, 50), st.integers(0, 300))
def test_evenly_chosen_items_are_many_and_far_apart(count: int, total: int) -> None:
    chosen = list(range(total))[evenly(count, total)]
    assert len(chosen) == min(count, total)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert gaps <= {max(1, total // count)}


def test_diversity_needs_images_of_the_same_class_in_a_batch() -> None:
    recipe = BENCHMARKS["in256"]()
    with pytest.raises(ValueError, match=r"rollout_batch_size is 256, but must be at least 2000"):
        replace(recipe, reward=replace(recipe.reward, diversity_weight=1.0))
