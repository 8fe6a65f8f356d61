"""The commands of the studies."""

from typing import Annotated

import tyro

from adanat import studies
from adanat.commands.options import DataDir, OutputDir, RecipeChoice, open_run


def study_rewards(
    recipe: RecipeChoice,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    kinds: Annotated[
        tuple[studies.RewardKind, ...],
        tyro.conf.arg(help="Designs to compare; more may be asked for later. Default: all."),
    ] = (),
    mixed_diversity: Annotated[
        float | None,
        tyro.conf.arg(
            help="Weight of diversity in adversarial-diversity. Default: the recipe's, else 0.5."
        ),
    ] = None,
) -> None:
    """Compare policies trained for different rewards; goes on where it was stopped.

    Uses the run in the folder, and makes it up to its schedule where it is missing.
    """
    run = open_run(recipe, output_dir, data_dir)
    print(studies.study_rewards(run, kinds=kinds, diversity_weight=mixed_diversity))


def study_adaptivity(
    recipe: RecipeChoice,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    steps: Annotated[tuple[int, ...], tyro.conf.arg(help="Numbers of decoding steps.")] = (
        2,
        4,
        6,
        8,
    ),
    ablation: Annotated[
        tuple[studies.AblationKind, ...],
        tyro.conf.arg(
            help="Single numbers exchanged with the tuned schedule's (no training); or policies "
            "that learn each number alone, or all without each."
        ),
    ] = ("exchanged",),
    ablation_seeds: Annotated[int, tyro.conf.arg(help="How many policy seeds those have.")] = 1,
) -> None:
    """Compare policies with the schedules they must beat, at several numbers of steps.

    Uses the run in the folder, and makes it up to its schedule where it is missing.
    """
    run = open_run(recipe, output_dir, data_dir)
    page = studies.study_adaptivity(
        run, steps=steps, ablation=ablation, ablation_seeds=ablation_seeds
    )
    print(page)


def study_length(
    recipe: RecipeChoice,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    prices: Annotated[
        tuple[float, ...],
        tyro.conf.arg(help="Of a decoding step, in units of the reward; more may be asked later."),
    ] = (0.0, 0.1, 0.3, 1.0),
) -> None:
    """Train policies at several prices of a decoding step: quality over network passes.

    Needs `--reveal-below`, close under the tuned schedule's last mask ratio (0.35 for 4 steps).
    Uses the run in the folder, and makes it up to its schedule where it is missing.
    """
    run = open_run(recipe, output_dir, data_dir)
    print(studies.study_length(run, prices=prices))
