"""Recipes are whole, refuse nonsense, and change their stage when a field changes."""

from dataclasses import replace
from pathlib import Path

import pytest
from adanat.contestants import describe, tuned_at
from adanat.errors import AdanatError
from adanat.recipes import RECIPES, get_recipe
from adanat.run import Run
from adanat.runs import config_to_json


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_serialises(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert config_to_json(recipe)["data"]["num_classes"] == recipe.data.num_classes
    height, width = recipe.tokenizer.model.grid_size
    assert height * width > recipe.num_decoding_steps


@pytest.mark.parametrize("name", RECIPES)
def test_averaged_weights_forget_the_random_ones(name: str) -> None:
    recipe = get_recipe(name)
    for stage in (recipe.tokenizer, recipe.generator):
        training = stage.training
        assert training.ema_decay**training.total_steps < 0.01


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(AdanatError, match=r"no recipe 'in-256'.*digits"):
        get_recipe("in-256")


def test_image_sizes_must_agree() -> None:
    recipe = get_recipe("digits")
    with pytest.raises(ValueError, match=r"image_size is 8 but data\.image_size is 16"):
        replace(recipe, data=replace(recipe.data, image_size=16))


def test_captions_that_tell_left_from_right_are_not_mirrored() -> None:
    by_caption, by_class = get_recipe("emoji-scenes-text"), get_recipe("emoji-scenes")
    mirrored = replace(by_class.tokens, mirrored=True)
    assert replace(by_class, tokens=mirrored).tokens.mirrored
    with pytest.raises(ValueError, match=r"tokens\.mirrored is True, but the captions of emoji-sc"):
        replace(by_caption, tokens=mirrored)


def test_comparisons_are_at_more_steps() -> None:
    recipe = get_recipe("digits")
    with pytest.raises(ValueError, match=r"above num_decoding_steps \(8\), got \[8\]"):
        replace(recipe, num_decoding_steps=8)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("tokenizer", {"batch_size": 0}, r"tokenizer\.batch_size must be positive, got 0"),
        ("generator", {"batch_size": -1}, r"generator\.batch_size must be positive, got -1"),
        ("schedule", {"guidance_scales": ()}, r"schedule\.guidance_scales is empty"),
        ("reward", {"real_side": "none"}, r"real_side must be .* got 'none'"),
        ("policy", {"seeds": ()}, r"policy\.seeds is empty"),
        ("evaluation", {"seeds": ()}, r"evaluation\.seeds is empty"),
    ],
)
def test_impossible_values_are_refused(part: str, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(getattr(get_recipe("digits"), part), **change)


def test_a_change_concerns_its_stage_and_the_later_ones_only(tmp_path: Path) -> None:
    recipe = get_recipe("digits")
    changed = replace(recipe, generator=replace(recipe.generator, batch_size=32))
    before = Run(recipe, tmp_path).stages.in_order()
    after = Run(changed, tmp_path).stages.in_order()
    same = {name for name in before if before[name].fingerprint == after[name].fingerprint}
    assert same == {"data", "train-tokenizer", "tokenize"}


def test_one_policy_does_not_depend_on_the_other_seeds(tmp_path: Path) -> None:
    recipe = get_recipe("digits")
    more = replace(recipe, policy=replace(recipe.policy, seeds=(0, 1)))
    first = Run(recipe, tmp_path).stages.policies[0]
    assert first.fingerprint == Run(more, tmp_path).stages.policies[0].fingerprint


def test_a_policy_seed_outside_the_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdanatError, match="no policy of seed 7; its seeds are 0"):
        Run(get_recipe("digits"), tmp_path).policy(7)


@pytest.mark.parametrize("name", ["static", "static_tuned", "adaptive", "adaptive_2"])
def test_every_contestant_has_a_description(name: str) -> None:
    assert describe(name)


def test_the_tuned_schedule_at_more_steps_is_described() -> None:
    assert describe(tuned_at(16)) == "the tuned schedule at 16 steps"
