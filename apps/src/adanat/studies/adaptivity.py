"""The study of adaptivity: what does choosing for each sample bring over one good schedule?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from natgen import StaticSchedule

from adanat import plots, run_command
from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
    contestants,
    searched_schedule,
)
from adanat.report import ParameterCurves, StepCurve
from adanat.run import Run
from adanat.runs import Stage
from adanat.schedule_points import tuned_point
from adanat.scoreboard import DISTANCE
from adanat.stages import search_static, train_policies
from adanat.studies import differences, pages
from adanat.studies.ablation import AblationKind, Measured, ablate
from adanat.studies.scoring import Rows, gain, names_of_seeds, prepare, score, value

NAME = "adaptivity"
_CONTESTANTS = (STATIC, STATIC_TUNED, STATIC_SEARCHED, ADAPTIVE_STATIC, ADAPTIVE)


def study_adaptivity(
    run: Run,
    *,
    steps: Sequence[int],
    ablation: Sequence[AblationKind] = ("exchanged",),
    ablation_seeds: int = 1,
) -> Path:
    """Train policies at several step counts, search schedules, and compare both.

    The folder `studies/adaptivity` of the run gets the page `adaptivity.md`, `figures.json` and
    pictures. Everything shares the run's models; what the run itself has trained with the same
    settings is taken over. An interrupted study goes on where it stopped, and further step counts
    may be asked for later.

    Args:
        run: its recipe but for the number of steps; its own stages are done where missing.
        steps: decoding steps T; ablation and differences are at the recipe's own, or at the
            first of these if it is not among them.
        ablation: which policies with some of the four numbers are measured.
        ablation_seeds: how many of the policy seeds they have.

    Returns:
        The page.

    Raises:
        ValueError: no steps, or a number of seeds beyond the recipe's.
    """
    _check(run, steps, ablation_seeds)
    folder = run.folder.study(NAME)
    prepare(run)
    runs = {count: _at(run, count) for count in sorted(set(steps))}
    stages: list[Stage] = []
    scores: dict[int, Stage] = {}
    like: Stage | None = None
    for count, variant in runs.items():
        prepare(variant)
        search_static(variant)
        train_policies(variant)
        made = [*variant.stages.policies.values(), variant.stages.static_search]
        like = scored = score(variant, partial(contestants, variant), made, like)
        stages += [variant.stages.schedule, *made, scored]
        scores[count] = scored
    own = run.recipe.num_decoding_steps
    studied = runs[own if own in runs else min(runs)]
    at = studied.recipe.num_decoding_steps
    subsets, more = ablate(studied, ablation, ablation_seeds, scores[at])
    stages += more
    chose, path = differences.choose(studied, run.recipe.policy.seeds[0])
    stages.append(chose)
    if not run.engine.is_main:
        return folder / f"{NAME}.md"
    chosen = differences.read(path)
    rows = {count: stage.results()["scores"] for count, stage in scores.items()}
    _draw(folder, runs, rows, studied, chosen)
    options = ["--steps", *map(str, runs), "--ablation", *ablation]
    command = run_command.command(
        "study-adaptivity", run, *options, "--ablation-seeds", str(ablation_seeds)
    )
    protocol = pages.protocol(run, command, stages)
    return _write(folder, run, runs, rows, studied, subsets, chosen, protocol)


def _check(run: Run, steps: Sequence[int], ablation_seeds: int) -> None:
    if not steps or min(steps) < 1:
        raise ValueError(f"steps must be one or more counts of at least 1, got {list(steps)}")
    available = len(run.recipe.policy.seeds)
    if not 1 <= ablation_seeds <= available:
        raise ValueError(
            f"ablation_seeds must be in [1, {available}], the number of policy.seeds, "
            f"got {ablation_seeds}"
        )


def _at(run: Run, steps: int) -> Run:
    recipe = replace(
        run.recipe,
        num_decoding_steps=steps,
        schedule=replace(run.recipe.schedule, comparison_steps=()),
        static_search=replace(run.recipe.static_search, included=True),
    )
    return replace(
        run, recipe=recipe, output_dir=run.folder.study(NAME) / f"steps-{steps}", base=run
    )


def _entries(name: str, run: Run) -> list[str]:
    """The scored entries of a contestant: one a policy seed for what was learned."""
    return names_of_seeds(name, run) if name in (ADAPTIVE, ADAPTIVE_STATIC) else [name]


def _write(
    folder: Path,
    run: Run,
    runs: Mapping[int, Run],
    rows: Mapping[int, Rows],
    studied: Run,
    subsets: Mapping[str, Measured],
    chosen: differences.Chosen,
    protocol: str,
) -> Path:
    distances = {
        name: {n: value(rows[n], _entries(name, runs[n]), DISTANCE) for n in runs}
        for name in _CONTESTANTS
    }
    gains = {
        name: {
            n: gain(rows[n], _entries(name, runs[n]), _entries(ADAPTIVE, runs[n]), DISTANCE)
            for n in runs
        }
        for name in (STATIC_TUNED, STATIC_SEARCHED, ADAPTIVE_STATIC)
    }
    steps = studied.recipe.num_decoding_steps
    active = studied.policy(run.recipe.policy.seeds[0]).spec.active
    by_class = run.recipe.text.encoder is None
    names = list(run.stages.data.results()["class_names"]) if by_class else None
    text, differing = differences.table(chosen, active.cpu().numpy(), names)
    counts = [f"T = {n}" for n in runs]
    budget = studied.stages.static_search.results()["num_images"]
    return pages.write(
        folder,
        NAME,
        {
            "distances": distances,
            "gains": gains,
            "subsets": subsets,
            "differences": differing,
            "scores": rows,
        },
        [
            f"# Adaptivity on {run.recipe.data.source}",
            "lite2 FD on test images at several numbers of decoding steps. `static` is the "
            "published schedule, `static_tuned` the best of the grid, `static_searched` was "
            f"searched without gradients ({budget} generated images at T = {steps}), "
            "`adaptive_static` is each learned policy's own average.",
            pages.table(["policy", *counts], _lines(distances)),
            "![Distance over steps](steps.png)",
            "## What the learned policy gains",
            "Paired differences in lite2 FD, positive where the learned policy is better; over "
            "`adaptive_static` it is what choosing for each sample brings.",
            pages.table(["over", *counts], _lines(gains)),
            f"## Which numbers matter, at T = {steps}",
            "All of the learned policy's numbers, and some of them, with the others as in the "
            "tuned schedule: exchanged afterwards, or (`only`, `without`) trained so.",
            pages.table(
                ["numbers", "lite2 FD", "recall", "gain over static_tuned", "policy seeds"],
                [
                    [
                        name,
                        pages.cell(found.distance, 2),
                        pages.cell(found.recall, 3),
                        pages.cell(found.gain, 2),
                        str(found.policy_seeds),
                    ]
                    for name, found in subsets.items()
                ],
            ),
            f"## How much the numbers differ, at T = {steps}",
            f"Over {len(chosen.parameters)} test samples of the policy of seed "
            f"{run.recipe.policy.seeds[0]}. The share between classes is eta squared: 1 where the "
            "class alone decides, 0 where it says nothing.",
            text,
            "![Chosen numbers](parameters.png)",
            "## How it was measured",
            protocol,
        ],
    )


def _lines(found: Mapping[str, Mapping[int, Any]]) -> list[list[str]]:
    return [
        [f"`{name}`", *(pages.cell(cell, 2) for cell in values.values())]
        for name, values in found.items()
    ]


def _draw(
    folder: Path,
    runs: Mapping[int, Run],
    rows: Mapping[int, Rows],
    studied: Run,
    chosen: differences.Chosen,
) -> None:
    colours = plots.policy_colours(_CONTESTANTS)
    curves = [
        StepCurve(
            name=name,
            distances={n: value(rows[n], _entries(name, runs[n]), DISTANCE) for n in runs},
        )
        for name in _CONTESTANTS
    ]
    plots.save_png(plots.step_figure(curves, "lite2 FD", colours), folder / "steps.png")
    schedules: dict[str, StaticSchedule] = {
        STATIC_TUNED: tuned_point(studied).schedule(),
        STATIC_SEARCHED: searched_schedule(studied),
    }
    shown = [ParameterCurves(name=n, values=s.values.numpy()) for n, s in schedules.items()]
    shown.append(ParameterCurves(name=ADAPTIVE, values=chosen.parameters))
    plots.save_png(plots.parameter_figure(shown, colours), folder / "parameters.png")
