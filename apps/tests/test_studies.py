"""Studies: their statistics against independent ones, and both end to end on the tiny recipe."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from adanat.cli import main
from adanat.recipes import Recipe, get_recipe
from adanat.recipes.benchmarks import BENCHMARKS, smoke
from adanat.run import Run
from adanat.run_command import command, flow_command
from adanat.studies import differences, study_adaptivity, study_rewards
from adanat.studies.ablation import Exchanged
from adanat.studies.rewards import reward_variants
from adanat.studies.scoring import gain, value
from natgen import StaticSchedule
from scipy import stats

ACTIVE = np.array([[1, 1, 1, 1], [0, 0, 1, 1]])


def _chosen(seed: int = 0) -> differences.Chosen:
    rng = np.random.default_rng(seed)
    groups = np.arange(60) % 3
    parameters = rng.normal(size=(60, 2, 4)).astype(np.float32)
    parameters[:, 0, 1] += groups  # between classes
    parameters[:, 1, 2] = 0.5  # nowhere
    parameters[:, 1, 3] = groups  # between classes alone
    return differences.Chosen(parameters, groups)


def test_the_share_between_classes_is_that_of_an_analysis_of_variance() -> None:
    chosen = _chosen()
    shares = differences.class_share(chosen)
    of_classes = [chosen.parameters[chosen.groups == group, 0, 1] for group in range(3)]
    f_value = stats.f_oneway(*of_classes).statistic
    expected = 2 * f_value / (2 * f_value + 57)  # eta squared of 3 groups, 60 values
    assert shares[0, 1] == pytest.approx(expected, rel=1e-5)
    assert shares[1, 2] == 0
    assert shares[1, 3] == pytest.approx(1)


def test_the_table_names_the_extreme_classes() -> None:
    text, rows = differences.table(_chosen(), ACTIVE, ["shoe", "coat", "bag"])
    assert len(rows) == 6  # the two of the last step that are not active are left out
    assert rows[-1]["mean_by_class"] == {"shoe": 0.0, "coat": 1.0, "bag": 2.0}
    assert "shoe (0.000) | bag (2.000) |" in text.splitlines()[-1]


def test_captions_have_no_classes_in_the_table() -> None:
    text, rows = differences.table(_chosen(), ACTIVE, None)
    assert "class" not in text
    assert "mean_by_class" not in rows[0]


ROWS = [
    {"policy": name, "seed": seed, "fd": fd}
    for name, fds in {"tuned": (5.0, 6.0), "adaptive": (3.0, 5.0), "adaptive_1": (4.0, 6.0)}.items()
    for seed, fd in enumerate(fds)
]


def test_gains_are_paired_by_generation_seed() -> None:
    one = gain(ROWS, ["tuned"], ["adaptive"], "fd")  # 2 and 1
    assert one.mean == pytest.approx(1.5)
    assert one.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)


def test_intervals_are_over_policy_seeds_where_there_are_several() -> None:
    both = gain(ROWS, ["tuned"], ["adaptive", "adaptive_1"], "fd")  # 1.5 and 0.5
    assert both.mean == pytest.approx(1.0)
    assert both.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)
    assert value(ROWS, ["adaptive", "adaptive_1"], "fd").mean == pytest.approx(4.5)


def test_captions_leave_out_the_rewards_that_go_by_classes() -> None:
    assert set(reward_variants(get_recipe("tiny-text"), 0.5)) == {"adversarial", "frechet"}
    found = reward_variants(get_recipe("tiny"), 0.5)
    assert found["adversarial"] == get_recipe("tiny")
    assert found["adversarial-diversity"].reward.diversity_weight == 0.5


def test_a_variant_shares_the_stages_of_equal_settings(tmp_path: Path) -> None:
    recipe = get_recipe("tiny")
    base = Run(recipe, tmp_path / "base")
    other = replace(recipe, policy=replace(recipe.policy, learned=("mask_ratio",), seeds=(0, 1)))
    run = Run(other, tmp_path / "other", base=base)
    assert run.folder.tokens == base.folder.tokens
    assert run.folder.schedule == base.folder.schedule
    assert run.folder.features == base.folder.features
    assert run.folder.policy(0) == tmp_path / "other" / "policy" / "seed-0"
    more = replace(other, policy=replace(recipe.policy, seeds=(0, 1)))
    nested = Run(more, tmp_path / "nested", base=run)
    assert nested.folder.generator == base.folder.generator
    assert Run(more, tmp_path / "more", base=base).folder.policy(0) == base.folder.policy(0)


def test_the_command_of_a_page_repeats_the_settings(tmp_path: Path) -> None:
    recipe = get_recipe("tiny")
    plain = Run(recipe, tmp_path)
    assert command("study", plain) == f"adanat study tiny --output-dir {tmp_path}"
    changed = replace(
        recipe,
        policy=replace(
            recipe.policy,
            seeds=(0, 1),
            learn_std=True,
            ppo=replace(recipe.policy.ppo, std_schedule=((0, 0.3), (5, 0.1)), target_kl=None),
        ),
        evaluation=replace(recipe.evaluation, num_samples=41),
    )
    study = command("study", Run(changed, tmp_path, tmp_path / "a b"), "--steps", "2")
    words = shlex.split(study)
    options = words[words.index("--data-dir") + 2 :]
    read = tyro.cli(Recipe, args=options[:-2], default=recipe)
    assert read == changed
    assert options[-2:] == ["--steps", "2"]
    assert str(tmp_path / "a b") in words


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (get_recipe("tiny"), "adanat run tiny"),
        (BENCHMARKS["in256"](), "adanat train in256"),
        (smoke(BENCHMARKS["in512"](), depth=2), "adanat train in512 --smoke"),
    ],
)
def test_the_command_of_a_flow_is_one_that_makes_it(
    recipe: Recipe, expected: str, tmp_path: Path
) -> None:
    assert flow_command(Run(recipe, tmp_path)) == f"{expected} --output-dir {tmp_path}"


def test_designs_that_go_by_classes_are_refused_with_captions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kinds must be of .* got \['pretrained'\]"):
        study_rewards(Run(get_recipe("tiny-text"), tmp_path), kinds=("frechet", "pretrained"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": ()}, r"steps must be one or more counts of at least 1, got \[\]"),
        ({"steps": (0,)}, r"got \[0\]"),
        ({"steps": (2,), "ablation_seeds": 2}, r"ablation_seeds must be in \[1, 1\].*got 2"),
    ],
)
def test_impossible_studies_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study_adaptivity(Run(get_recipe("tiny"), tmp_path), **arguments)


def test_exchanged_numbers_are_the_other_policys() -> None:
    one, other = (StaticSchedule(torch.full((2, 4), number)) for number in (0.25, 0.75))
    mixed = Exchanged(one, other, ["guidance_scale", "mask_ratio"])
    chosen = mixed(torch.zeros(3, 5, 6), 1)
    assert mixed.num_steps == 2
    assert {name: numbers.tolist() for name, numbers in chosen.items()} == {
        "mask_ratio": [0.75] * 3,
        "sampling_temperature": [0.25] * 3,
        "remask_temperature": [0.25] * 3,
        "guidance_scale": [0.75] * 3,
    }


SHORT = ("--policy.num-updates", "1", "--evaluation.num-samples", "40")


@pytest.mark.slow
def test_both_studies_end_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["tiny", "--output-dir", str(folder), *SHORT]
    main(["study-rewards", *arguments])
    study = folder / "studies" / "rewards"
    found = json.loads((study / "figures.json").read_text())
    assert set(found["summary"]) == {
        "adversarial",
        "frechet",
        "pretrained",
        "adversarial-diversity",
    }
    assert found["summary"]["frechet"]["last"]["lite2_fd"]["mean"] > 0
    page = (study / "rewards.md").read_text()
    for picture in ("curves.png", "samples.png"):
        assert (study / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in page
    assert f"adanat study-rewards tiny --output-dir {folder} {' '.join(SHORT)} --kinds" in page

    ablation = ["--ablation", "exchanged", "alone"]
    main(["study-adaptivity", *arguments, "--steps", "2", "4", *ablation])
    study = folder / "studies" / "adaptivity"
    found = json.loads((study / "figures.json").read_text())
    assert set(found["distances"]["static_searched"]) == {"2", "4"}
    assert set(found["gains"]) == {"static_tuned", "static_searched", "adaptive_static"}
    assert len(found["subsets"]) == 1 + 2 * 4 + 4
    assert {"all", "tuned with the policy's mask_ratio", "only mask_ratio"} < set(found["subsets"])
    assert len(found["differences"]) == 14  # of 16, without the last step's inert two
    classifiers = {p.read_bytes() for p in study.rglob("classifier/model.safetensors")}
    assert len(classifiers) == 1
    # The run's own policy is trained once, for both studies.
    assert (folder / "policy" / "seed-0" / "done.json").is_file()
    assert not (study / "steps-4" / "policy").exists()

    marks = {path: path.stat().st_mtime_ns for path in study.rglob("done.json")}
    main(["study-adaptivity", *arguments, "--steps", "2", "4", *ablation])
    assert marks == {path: path.stat().st_mtime_ns for path in study.rglob("done.json")}
