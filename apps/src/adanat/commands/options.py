"""The options that commands share, and the command of whatever works on a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adanat.recipes import RECIPES, Recipe
from adanat.recipes.benchmarks import BENCHMARKS
from adanat.run import Run
from adanat.runs import Stage

_BENCHMARK_HELP = {
    "in256": "ImageNet at 256 pixels by class, the large NAT: GPU-days.",
    "in512": "ImageNet at 512 pixels by class, the large NAT: GPU-days.",
    "coco": "MS-COCO at 256 pixels by caption: GPU-days.",
    "cc3m": "CC3M at 256 pixels by caption, the text NAT: GPU-days.",
}
_RECIPE_HELP = {
    "digits": "8x8 digits, minutes: see every part work.",
    "emoji-scenes": "Emoji on coloured grounds, 64 pixels, by class: hours.",
    "emoji-scenes-text": "Emoji on coloured grounds, 64 pixels, by caption: hours.",
    "fashion-mnist": "Clothes of 28x28 pixels, hours: rank policies.",
    "fashion-mnist-quick": "Clothes of 28x28 pixels, a quarter of an hour: a first look.",
    "fashion-mnist-smoke": "Clothes, a few minutes: does every stage still fit?",
    "tiny": "Half a minute: tests and trial runs.",
    "tiny-text": "The same with captions.",
    **_BENCHMARK_HELP,
}

# A recipe's name is a subcommand; every field of that recipe is an option behind it.
if TYPE_CHECKING:
    RecipeChoice = Recipe  # the unions below are made at run time
    BenchmarkChoice = Recipe
else:
    RecipeChoice = Annotated[
        tyro.extras.subcommand_type_from_defaults(
            {name: build() for name, build in RECIPES.items()}, _RECIPE_HELP
        ),
        tyro.conf.arg(name=""),
    ]
    BenchmarkChoice = Annotated[
        tyro.extras.subcommand_type_from_defaults(
            {name: build() for name, build in BENCHMARKS.items()}, _BENCHMARK_HELP
        ),
        tyro.conf.arg(name=""),
    ]
OutputDir = Annotated[Path | None, tyro.conf.arg(help="Folder of the run. Default: runs/RECIPE.")]
DataDir = Annotated[
    Path | None,
    tyro.conf.arg(help="Folder with the data set's own files. Default: known places."),
]
PreparedDir = Annotated[Path | None, tyro.conf.arg(help="Folder that `adanat prepare` has made.")]
Overwrite = Annotated[
    bool, tyro.conf.arg(help="Delete what this command made in the folder before.")
]


def open_run(recipe: Recipe, output_dir: Path | None, data_dir: Path | None = None) -> Run:
    """The run of a recipe, in its own folder where none is named."""
    return Run(recipe, output_dir or Path("runs") / recipe.name, data_dir)


def clear(run: Run, stages: Sequence[Stage]) -> None:
    """Delete what these stages of a run have made; of several processes the main one does."""
    if run.engine.is_main:
        for stage in stages:
            stage.clear()
    run.engine.wait()


def run_command(
    work: Callable[[Run], None], stages: Callable[[Run], Sequence[Stage]]
) -> Callable[..., None]:
    """The command that works on a run; `stages` are those that --overwrite clears."""

    def command(
        recipe: RecipeChoice,
        output_dir: OutputDir = None,
        data_dir: DataDir = None,
        overwrite: Overwrite = False,
    ) -> None:
        run = open_run(recipe, output_dir, data_dir)
        if overwrite:
            clear(run, stages(run))
        work(run)

    return command
