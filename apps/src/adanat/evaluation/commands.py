"""The commands `adanat evaluate SOURCE` and `adanat compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from adanat.evaluation.comparison import COSTS, read_entries
from adanat.evaluation.evaluate import evaluate_source
from adanat.evaluation.options import SourceEvaluation
from adanat.recipes import RECIPES

_SOURCE_HELP = """Judge any source of images. Started by torchrun, several processes share the work.

With a recipe in place of SOURCE, the stage `evaluate` of its run: see `adanat evaluate --help`."""


def names_path(arguments: Sequence[str]) -> bool:
    """Whether what follows `adanat evaluate` is a path: whatever is no recipe and no option."""
    first = arguments[0] if arguments else ""
    return first not in RECIPES and first[:1] not in ("", "-")


def evaluate_path(arguments: Sequence[str]) -> None:
    """Judge the source that the arguments name; print the figures and where they are."""
    options = tyro.cli(
        SourceEvaluation, prog="adanat evaluate", description=_SOURCE_HELP, args=arguments
    )
    result = evaluate_source(options)
    if result is not None:
        print(f"{result.text()}\n\nresults: {options.output}")


def compare(
    results: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="Files of `evaluate SOURCE --output`, or folders of evaluated runs."),
    ],
    output_dir: Annotated[Path, tyro.conf.arg(help="Folder of tables and figure.")] = Path(
        "comparison"
    ),
    metric: Annotated[str, tyro.conf.arg(help="The figure of quality.")] = "lite2_fd",
    cost: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(COSTS)}.")] = "network_passes",
    baseline: Annotated[
        str | None, tyro.conf.arg(help="Entry over which gains are shown, paired over seeds.")
    ] = None,
) -> None:
    """Policies and step counts side by side: quality against cost, as tables and a figure."""
    from adanat.evaluation.comparison_tables import Comparison  # with matplotlib

    comparison = Comparison(read_entries(results), metric=metric, baseline=baseline)
    comparison.write(output_dir, cost=cost)
    print(f"{comparison.markdown()}\ntables and figure: {output_dir}")
