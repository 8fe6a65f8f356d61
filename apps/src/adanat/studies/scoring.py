"""What every study does with its variants of a run: train them and score them on test images."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from natgen import DecodingPolicy

from adanat.contestants import of_seed
from adanat.report import Value
from adanat.run import Run
from adanat.runs import Stage
from adanat.scoreboard import Scoreboard
from adanat.stages import (
    prepare_data,
    search_schedule,
    tokenize,
    train_generator,
    train_tokenizer,
)
from adanat.summary import with_interval

Rows = Sequence[Mapping[str, Any]]
"""Scores, each of one `policy` under one generation `seed`."""


def prepare(run: Run) -> None:
    """Everything before the policies; what the base run has finished is taken from it."""
    for work in (prepare_data, train_tokenizer, tokenize, train_generator, search_schedule):
        work(run)


def score(
    run: Run,
    policies: Callable[[], Mapping[str, DecodingPolicy]],
    depends_on: Sequence[Stage],
    like: Stage | None = None,
) -> Stage:
    """Score policies on test images, with the labels and the noise that all variants share.

    Args:
        run: a variant; the scores go to `scores/` in its output folder.
        policies: loads them, by name.
        depends_on: the stages that they come from.
        like: finished scores of another variant; their classifier is taken over, which would be
            trained to the same here.

    Returns:
        The finished stage; its results hold `scores`.
    """
    recipe = run.recipe
    stage = Stage(
        "score",
        run.output_dir / "scores",
        {"seed": recipe.seed, "evaluation": recipe.evaluation},
        depends_on=depends_on,
        processes=run.engine,
    )
    if stage.is_done():
        return stage
    with stage:
        if like is not None:
            with run.engine.main_first():
                _copy_once(like.folder / "classifier", stage.folder / "classifier")
        board = Scoreboard(run, stage.folder)
        loaded = policies()
        for seed in recipe.evaluation.seeds:
            for name, policy in loaded.items():
                board.measure(name, policy, seed)
        stage.finish({"scores": board.rows})
    return stage


def _copy_once(source: Path, target: Path) -> None:
    if target.exists():
        return
    half_written = target.with_name(f".tmp-{target.name}")
    shutil.copytree(source, half_written, dirs_exist_ok=True)
    half_written.replace(target)


def names_of_seeds(name: str, run: Run) -> list[str]:
    """The entries of all policy seeds of a run."""
    return [of_seed(name, run, seed) for seed in run.recipe.policy.seeds]


def value(rows: Rows, names: Sequence[str], key: str) -> Value:
    """Mean of a score with its 95 % interval.

    The interval is over policy seeds where there are several names, otherwise over generation
    seeds, where there are several.
    """
    by_name = [list(_by_seed(rows, name, key).values()) for name in names]
    if len(by_name) > 1:
        return with_interval([sum(values) / len(values) for values in by_name])
    return with_interval(by_name[0])


def gain(rows: Rows, baselines: Sequence[str], candidates: Sequence[str], key: str) -> Value:
    """Paired mean of baseline - candidate with its interval, as `value` says.

    Args:
        rows: scores of all of them.
        baselines: one for each candidate, or one for all.
        candidates: the entries of the policy seeds.
        key: the score.
    """
    if len(baselines) == 1:
        baselines = [baselines[0]] * len(candidates)
    differences = []
    for baseline, candidate in zip(baselines, candidates, strict=True):
        before, after = _by_seed(rows, baseline, key), _by_seed(rows, candidate, key)
        differences.append([before[seed] - after[seed] for seed in before])
    if len(differences) > 1:
        return with_interval([sum(values) / len(values) for values in differences])
    return with_interval(differences[0])


def _by_seed(rows: Rows, name: str, key: str) -> dict[int, float]:
    return {row["seed"]: float(row[key]) for row in rows if row["policy"] == name}
