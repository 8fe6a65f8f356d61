"""The command line: one command a stage, `run` for all of them, `quickstart` for newcomers."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from adanat.benchmark_commands import BENCHMARK_HELP, doctor, prepare, train
from adanat.data import FONT_NAME, EmojiFont, make_emoji_scenes
from adanat.errors import AdanatError
from adanat.evaluation import compare, evaluate_path, names_path
from adanat.pipeline import NATPipeline
from adanat.recipes import RECIPES, Recipe, get_recipe
from adanat.run import Run
from adanat.runs import Stage
from adanat.stages import (
    evaluate,
    prepare_data,
    sample,
    search_more_steps,
    search_schedule,
    search_static,
    search_static_if_included,
    tokenize,
    train_generator,
    train_policies,
    train_tokenizer,
    write_report,
)
from adanat.studies import SubsetKind, study_adaptivity, study_rewards
from adanat.summary import text_table

_RECIPE_HELP = {
    "digits": "8x8 digits, minutes: see every part work.",
    "emoji-scenes": "Emoji on coloured grounds, 64 pixels, by class: hours.",
    "emoji-scenes-text": "Emoji on coloured grounds, 64 pixels, by caption: hours.",
    "fashion-mnist": "Clothes of 28x28 pixels, hours: rank policies.",
    "fashion-mnist-quick": "Clothes of 28x28 pixels, a quarter of an hour: a first look.",
    "fashion-mnist-smoke": "Clothes, two minutes: does every stage still fit?",
    "tiny": "Half a minute: tests and trial runs.",
    "tiny-text": "The same with captions.",
    **BENCHMARK_HELP,
}
_QUICKSTART_RECIPES = {"digits": "digits", "fashion-mnist": "fashion-mnist-quick"}

# The recipe's name is a subcommand; every field of that recipe is an option behind it.
if TYPE_CHECKING:
    _RecipeChoice = Recipe  # the union below is made at run time
else:
    _RecipeChoice = Annotated[
        tyro.extras.subcommand_type_from_defaults(
            {name: build() for name, build in RECIPES.items()}, _RECIPE_HELP
        ),
        tyro.conf.arg(name=""),
    ]
_OutputDir = Annotated[Path | None, tyro.conf.arg(help="Folder of the run. Default: runs/RECIPE.")]
_DataDir = Annotated[
    Path | None,
    tyro.conf.arg(help="Folder with the data set's own files. Default: known places."),
]
_Overwrite = Annotated[
    bool, tyro.conf.arg(help="Delete what this command made in the folder before.")
]


def _run(recipe: Recipe, output_dir: Path | None, data_dir: Path | None = None) -> Run:
    return Run(recipe, output_dir or Path("runs") / recipe.name, data_dir)


def _clear(stages: Sequence[Stage]) -> None:
    for stage in stages:
        stage.clear()


def _whole(run: Run) -> None:
    """Every stage in order; finished ones do nothing."""
    for work in (
        prepare_data,
        train_tokenizer,
        tokenize,
        train_generator,
        search_schedule,
        search_static_if_included,
        train_policies,
        search_more_steps,
        evaluate,
    ):
        work(run)
    _report(run)


def _report(run: Run) -> None:
    if not run.engine.is_main:
        return
    write_report(run)
    print(f"\n{text_table(run)}\n\nmetrics: {run.folder.metrics}\nreport:  {run.folder.report}")


def _stage_command(
    summary: str, work: Callable[[Run], None], stages: Callable[[Run], Sequence[Stage]]
) -> Callable[..., None]:
    """The command of one stage; `stages` are those that --overwrite clears."""

    def command(
        recipe: _RecipeChoice,
        output_dir: _OutputDir = None,
        data_dir: _DataDir = None,
        overwrite: _Overwrite = False,
    ) -> None:
        run = _run(recipe, output_dir, data_dir)
        if overwrite:
            _clear(stages(run))
        work(run)

    command.__doc__ = summary
    return command


def _quickstart(
    data: Literal["digits", "fashion-mnist"] = "digits",
    output_dir: _OutputDir = None,
    data_dir: _DataDir = None,
    overwrite: _Overwrite = False,
) -> None:
    """The whole loop on real images in minutes, ending with a table and a page of pictures."""
    run = _run(get_recipe(_QUICKSTART_RECIPES[data]), output_dir, data_dir)
    if overwrite:
        _clear(list(run.stages.in_order().values()))
    _whole(run)


def _sample(
    recipe: _RecipeChoice,
    output_dir: _OutputDir = None,
    policy: Annotated[
        str,
        tyro.conf.arg(help="static, static_tuned, static_searched, adaptive or adaptive_static."),
    ] = "adaptive",
    labels: Annotated[
        tuple[int, ...], tyro.conf.arg(help="Classes, used in turn. Default: all of them.")
    ] = (),
    prompts: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Captions, used in turn, for a run with captions. Default: the test's."),
    ] = (),
    num_samples: int = 64,
    noise_seed: Annotated[int, tyro.conf.arg(help="Same seed, same pictures.")] = 0,
) -> None:
    """Draw pictures from a finished run."""
    run = _run(recipe, output_dir)
    path = sample(
        run,
        policy=policy,
        labels=labels,
        prompts=prompts,
        num_samples=num_samples,
        seed=noise_seed,
    )
    print(path)


def _export_pipeline(
    recipe: _RecipeChoice,
    to: Annotated[Path, tyro.conf.arg(help="Folder of the pipeline.")],
    output_dir: _OutputDir = None,
) -> None:
    """Save tokenizer, transformer and policy of a finished run as one folder for NATPipeline."""
    NATPipeline.from_run(_run(recipe, output_dir)).save_pretrained(to)
    print(to)


def _study_rewards(
    recipe: _RecipeChoice,
    output_dir: _OutputDir = None,
    data_dir: _DataDir = None,
    mixed_diversity: Annotated[
        float, tyro.conf.arg(help="Weight of diversity beside the adversarial reward.")
    ] = 0.5,
) -> None:
    """Compare policies trained for different rewards; goes on where it was stopped.

    Uses the run in the folder, and makes it up to its schedule where it is missing.
    """
    print(study_rewards(_run(recipe, output_dir, data_dir), diversity_weight=mixed_diversity))


def _study_adaptivity(
    recipe: _RecipeChoice,
    output_dir: _OutputDir = None,
    data_dir: _DataDir = None,
    steps: Annotated[tuple[int, ...], tyro.conf.arg(help="Numbers of decoding steps.")] = (
        2,
        4,
        6,
        8,
    ),
    ablation: Annotated[
        tuple[SubsetKind, ...],
        tyro.conf.arg(help="Policies that learn each number alone, all without each, or both."),
    ] = ("alone",),
    ablation_seeds: Annotated[
        int, tyro.conf.arg(help="How many of the policy seeds those are trained with.")
    ] = 1,
) -> None:
    """Compare policies with the schedules they must beat, at several numbers of steps.

    Uses the run in the folder, and makes it up to its schedule where it is missing.
    """
    run = _run(recipe, output_dir, data_dir)
    page = study_adaptivity(run, steps=steps, subsets=ablation, ablation_seeds=ablation_seeds)
    print(page)


def _make_emoji_scenes(
    output_dir: Path,
    num_images: Annotated[int, tyro.conf.arg(help="Images to train on (split `fit`).")],
    image_size: Annotated[int, tyro.conf.arg(help="Side in pixels, 32 to 512.")] = 64,
    num_validation: Annotated[int | None, tyro.conf.arg(help="Default: a tenth.")] = None,
    num_test: Annotated[int | None, tyro.conf.arg(help="Default: a tenth.")] = None,
    seed: int = 0,
    data_dir: Annotated[
        Path | None, tyro.conf.arg(help="Folder with NotoColorEmoji.ttf. Default: known places.")
    ] = None,
) -> None:
    """Make a captioned data set: emoji on coloured grounds, as img2dataset-style shards."""
    tenth = max(1, num_images // 10)
    index = make_emoji_scenes(
        output_dir,
        image_size=image_size,
        num_images={
            "fit": num_images,
            "validation": tenth if num_validation is None else num_validation,
            "test": tenth if num_test is None else num_test,
        },
        seed=seed,
        font=None if data_dir is None else EmojiFont(data_dir / FONT_NAME),
    )
    for split, shards in index.splits.items():
        print(f"{split}: {sum(shard.num_samples for shard in shards)} images in {output_dir}")


COMMANDS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "quickstart": _quickstart,
        "prepare": prepare,
        "train": train,
        "doctor": doctor,
        "run": _stage_command(
            "All stages in order. Finished ones do nothing, interrupted ones go on.",
            _whole,
            lambda run: list(run.stages.in_order().values()),
        ),
        "make-emoji-scenes": _make_emoji_scenes,
        "data": _stage_command(
            "Write the data set as webdataset shards.", prepare_data, lambda run: [run.stages.data]
        ),
        "train-tokenizer": _stage_command(
            "Train the tokenizer: images to grids of codes.",
            train_tokenizer,
            lambda run: [run.stages.tokenizer],
        ),
        "tokenize": _stage_command(
            "Encode all images into memory-mapped stores.",
            tokenize,
            lambda run: [run.stages.tokens],
        ),
        "train-generator": _stage_command(
            "Train the non-autoregressive transformer on the codes.",
            train_generator,
            lambda run: [run.stages.generator],
        ),
        "search-schedule": _stage_command(
            "Find the best hand-made schedule of a grid on validation images.",
            search_schedule,
            lambda run: [run.stages.schedule],
        ),
        "search-static": _stage_command(
            "Search the best schedule for all images without gradients, at a policy's budget. "
            "With --static-search.included, `run` does so and the evaluation compares it.",
            search_static,
            lambda run: [run.stages.static_search],
        ),
        "train-policy": _stage_command(
            "Train the policies by PPO against the adversarial reward.",
            train_policies,
            lambda run: list(run.stages.policies.values()),
        ),
        "search-more-steps": _stage_command(
            "Tune the schedule again at more steps: what the policies are measured against.",
            search_more_steps,
            lambda run: [run.stages.more_steps],
        ),
        "sample": _sample,
        "export-pipeline": _export_pipeline,
        "evaluate": _stage_command(
            "Score all policies on test images, paired, over several seeds. "
            "With a path in place of the recipe: judge any images, see `evaluate PATH --help`.",
            evaluate,
            lambda run: [run.stages.evaluation],
        ),
        "compare": compare,
        "study-rewards": _study_rewards,
        "study-adaptivity": _study_adaptivity,
        "report": _stage_command(
            "Write metrics.json, report.html, results.md and figures of an evaluated run.",
            _report,
            lambda run: [],
        ),
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script `adanat`; exits with 1 on an error of the user's side."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["evaluate"] and names_path(given[1:]):
            evaluate_path(given[1:])
            return
        tyro.extras.subcommand_cli_from_dict(
            dict(COMMANDS),
            prog="adanat",
            description="AdaNAT from raw images to the evaluated policy.",
            args=given,
            config=_CONFIG,
        )
    except (AdanatError, OSError, ValueError) as error:
        print(f"adanat: error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


_CONFIG: tuple[Any, ...] = (
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.CascadeSubcommandArgs,
)
