"""The study of rewards: which of them can be gamed? (AdaNAT, arXiv 2409.00342, sec. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from natgen import DecodingPolicy
from policyrl import GaussianPolicy

from adanat import plots, run_command
from adanat.contestants import ADAPTIVE, STATIC_TUNED, of_seed
from adanat.generation import Generator
from adanat.judge import LITE2
from adanat.metrics_log import read_metrics
from adanat.recipes.base import Recipe, RewardRecipe
from adanat.report import SampleSet, Series, TrainingFigure, Value
from adanat.run import Run, load_model
from adanat.schedule_points import tuned_point
from adanat.scoreboard import CLASSIFIER, DISTANCE
from adanat.seeding import derive_seed
from adanat.stages import train_policies
from adanat.studies import pages
from adanat.studies.scoring import Rows, gain, names_of_seeds, prepare, score, value

NAME = "rewards"
RewardKind = Literal["adversarial", "adversarial-diversity", "frechet", "pretrained"]
_LAST = "last"
_PRECISION, _RECALL = f"{LITE2}_precision", f"{LITE2}_recall"
_PICTURES_PER_CLASS = 6
Curves = Mapping[str, Mapping[str, list[float]]]
"""For each key of `_CURVES` its `steps` and `values`."""
_CURVES = {
    "own reward": "own_reward",
    "validation lite2 FD (less is better)": "validation_lite2_fd",
    "validation precision": "validation_lite2_precision",
    "validation recall": "validation_lite2_recall",
}


def study_rewards(
    run: Run, *, kinds: Sequence[RewardKind] = (), diversity_weight: float | None = None
) -> Path:
    """Train policies for each design of the reward and compare where they end.

    The folder `studies/rewards` of the run gets the page `rewards.md`, `figures.json` and
    pictures. All designs share the run's models and its tuned schedule, and a policy that the run
    itself has trained is taken over. An interrupted study goes on where it stopped, and further
    designs may be asked for later.

    Args:
        run: its recipe but for the design; its own stages are done where they are missing.
        kinds: the designs; none named: all that the run's condition allows.
        diversity_weight: of the mixture of the adversarial reward with diversity; None: the
            recipe's own, or 0.5 where it has none.

    Returns:
        The page.

    Raises:
        ValueError: a design that the run's condition does not allow.
    """
    if diversity_weight is None:
        diversity_weight = run.recipe.reward.diversity_weight or 0.5
    recipes = reward_variants(run.recipe, diversity_weight)
    if impossible := [kind for kind in kinds if kind not in recipes]:
        raise ValueError(f"kinds must be of {list(recipes)} for this recipe, got {impossible}")
    folder = run.folder.study(NAME)
    prepare(run)
    variants: dict[str, Run] = {
        name: replace(run, recipe=recipe, output_dir=folder / name, base=run)
        for name, recipe in recipes.items()
        if name in (kinds or recipes)
    }
    tuned = replace(run, output_dir=folder / STATIC_TUNED, base=run)
    stages = [score(tuned, partial(_tuned, run), [run.stages.schedule])]
    rows: dict[str, Rows] = {}
    for name, variant in variants.items():
        train_policies(variant)
        policies = list(variant.stages.policies.values())
        scored = score(variant, partial(_trained, variant), policies, like=stages[0])
        stages += [*policies, scored]
        rows[name] = [*stages[0].results()["scores"], *scored.results()["scores"]]
    page = folder / f"{NAME}.md"
    if not run.engine.is_main:
        return page
    curves = {name: _curves(variant) for name, variant in variants.items()}
    _draw(folder, run, variants, curves)
    options = ["--kinds", *variants, "--mixed-diversity", f"{diversity_weight:g}"]
    summary = {name: _summary(variants[name], rows[name], curves[name]) for name in variants}
    return pages.write(
        folder,
        NAME,
        {"summary": summary, "curves": curves, "scores": rows},
        [
            f"# Rewards on {run.recipe.data.source}",
            "Policies trained for each reward on the same transformer. *Own reward* is what the "
            "policy was paid, as a change since its first cycle in units of the spread over "
            "images there; an adversarial one has a moving opponent, and "
            "a mixture, standardised over each batch, has no such figure. The other columns are "
            "measured on test images with features that no policy was trained on, at the end of "
            "training: gain and loss are against the tuned schedule, where all policies begin.",
            pages.table(*_rows_of(summary, rows)),
            "*Gamed*: the own reward rose while the distance or the recall got worse by more than "
            "its interval.",
            "![Curves over the training](curves.png)",
            "![Samples at the end of training](samples.png)",
            "## How it was measured",
            pages.protocol(run, run_command.command("study-rewards", run, *options), stages),
        ],
    )


def reward_variants(recipe: Recipe, diversity_weight: float) -> dict[RewardKind, Recipe]:
    """The recipe under each reward; with captions without those that go by classes."""
    plain = replace(recipe.reward, diversity_weight=0.0)
    rewards: dict[RewardKind, RewardRecipe] = {
        "adversarial": replace(plain, design="adversarial"),
        "frechet": replace(plain, design="frechet"),
    }
    if recipe.text.encoder is None or plain.scorer != "classifier":
        rewards["pretrained"] = replace(plain, design="pretrained")
    if recipe.text.encoder is None:
        rewards["adversarial-diversity"] = replace(
            rewards["adversarial"], diversity_weight=diversity_weight
        )
    return {name: replace(recipe, reward=reward) for name, reward in rewards.items()}


def _tuned(run: Run) -> dict[str, DecodingPolicy]:
    return {STATIC_TUNED: tuned_point(run).schedule()}


def _last(run: Run, seed: int) -> GaussianPolicy:
    model = load_model(GaussianPolicy.from_pretrained, run.folder.last_policy_model(seed))
    return model.to(run.device).eval()


def _trained(run: Run) -> dict[str, DecodingPolicy]:
    """The policies of all seeds as training ended, and those chosen on validation images."""
    found: dict[str, DecodingPolicy] = {}
    for seed in run.recipe.policy.seeds:
        found[of_seed(_LAST, run, seed)] = _last(run, seed)
        found[of_seed(ADAPTIVE, run, seed)] = run.policy(seed)
    return found


def _curves(run: Run) -> Curves:
    """The curves of a run, means over its policy seeds."""
    logs = [read_metrics(run.folder.policy(seed)) for seed in run.recipe.policy.seeds]
    found = {}
    for key in _CURVES.values():
        if key == "own_reward" and run.recipe.reward.diversity_weight:
            continue  # a mixture is standardised over each batch: its mean never moves
        of_seeds = [_own_reward(log) if key == "own_reward" else _column(log, key) for log in logs]
        steps = sorted(of_seeds[0])
        found[key] = {
            "steps": [float(step) for step in steps],
            "values": [float(np.mean([curve[step] for curve in of_seeds])) for step in steps],
        }
    return found


def _column(log: Sequence[Mapping[str, Any]], key: str) -> dict[int, float]:
    return {row["step"]: row[key] for row in log if row.get(key) is not None}


def _own_reward(log: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Change of the reward since the first update, in units of its spread then."""
    rewards, spreads = _column(log, "reward_mean"), _column(log, "reward_std")
    first = min(spreads)
    return {
        step: (reward - rewards[first]) / max(spreads[first], 1e-12)
        for step, reward in rewards.items()
        if step >= first
    }


def _summary(run: Run, rows: Rows, curves: Curves) -> dict[str, Any]:
    last, chosen = names_of_seeds(_LAST, run), names_of_seeds(ADAPTIVE, run)
    own = curves["own_reward"]["values"][-1] if "own_reward" in curves else None
    closer = gain(rows, [STATIC_TUNED], last, DISTANCE)
    forgotten = gain(rows, [STATIC_TUNED], last, _RECALL)
    return {
        "own_reward_change": own,
        "last": {
            key: value(rows, last, key)
            for key in (DISTANCE, _PRECISION, _RECALL, f"{CLASSIFIER}_fd")
        },
        "chosen_distance": value(rows, chosen, DISTANCE),
        "distance_gain": closer,
        "recall_loss": forgotten,
        "gamed": None
        if own is None
        else own > 0 and (_surely_negative(closer) or _surely_positive(forgotten)),
    }


def _surely_negative(found: Value) -> bool:
    return found.mean + (found.half_width or 0.0) < 0


def _surely_positive(found: Value) -> bool:
    return found.mean - (found.half_width or 0.0) > 0


def _rows_of(
    summary: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Rows]
) -> tuple[list[str], list[list[str]]]:
    scores = (DISTANCE, _PRECISION, _RECALL, f"{CLASSIFIER}_fd")
    digits = (2, 3, 3, 3)
    header = [
        "reward", "own reward", "lite2 FD", "precision", "recall", "classifier FD",
        "gain in lite2 FD", "loss of recall", "lite2 FD of the chosen policy", "gamed",
    ]  # fmt: skip
    first = next(iter(rows.values()))
    tuned = [
        pages.cell(value(first, [STATIC_TUNED], k), d) for k, d in zip(scores, digits, strict=True)
    ]
    lines = [["tuned schedule", "-", *tuned, "-", "-", "-", "-"]]
    for name, found in summary.items():
        own = found["own_reward_change"]
        lines.append(
            [
                name,
                "-" if own is None else f"{own:+.2f}",
                *(pages.cell(found["last"][k], d) for k, d in zip(scores, digits, strict=True)),
                pages.cell(found["distance_gain"], 2),
                pages.cell(found["recall_loss"], 3),
                pages.cell(found["chosen_distance"], 2),
                {None: "-", True: "yes", False: "no"}[found["gamed"]],
            ]
        )
    return header, lines


def _draw(
    folder: Path,
    run: Run,
    variants: Mapping[str, Run],
    curves: Mapping[str, Curves],
) -> None:
    figures = [
        TrainingFigure(
            title=title,
            series=tuple(
                Series(
                    label=name,
                    steps=np.array(found[key]["steps"]),
                    values=np.array(found[key]["values"]),
                )
                for name, found in curves.items()
                if key in found
            ),
            x_label="training cycle",
        )
        for title, key in _CURVES.items()
    ]
    plots.save_png(plots.training_panels(figures), folder / "curves.png")
    seed = run.recipe.policy.seeds[0]
    policies: dict[str, DecodingPolicy] = _tuned(run)
    policies |= {name: _last(variant, seed) for name, variant in variants.items()}
    plots.save_png(_samples(run, policies), folder / "samples.png")


def _samples(run: Run, policies: Mapping[str, DecodingPolicy]) -> Figure:
    """The same labels and noise under each policy, a row for each class or caption."""
    conditions = run.conditions("test")
    by_class = run.recipe.text.encoder is None
    rows = min(run.recipe.data.num_classes, 10) if by_class else 10
    names = (
        run.stages.data.results()["class_names"][:rows]
        if by_class
        else [str(number) for number in range(rows)]
    )
    generator = Generator(
        run.nat(),
        run.tokenizer(),
        lambda indices: conditions.of_samples(indices % rows).generator,
        batch_size=rows * _PICTURES_PER_CLASS,
    )
    sets = []
    for name, policy in policies.items():
        batches = generator.batches(
            policy,
            seed=derive_seed(run.recipe.seed, "study pictures"),
            num_samples=rows * _PICTURES_PER_CLASS,
        )
        images = next(iter(batches)).images
        by_row = images.unflatten(0, (_PICTURES_PER_CLASS, rows)).transpose(0, 1)
        sets.append(SampleSet(name=name, images=by_row.numpy()))
    return plots.samples_figure(sets, names)
