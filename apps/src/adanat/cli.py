"""The command line: one command a stage, `run` for all of them, `quickstart` for newcomers.

The list of commands needs no PyTorch: a command's module is imported when the command is run.
"""

import inspect
import logging
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tyro

from adanat.errors import AdanatError


class Command(NamedTuple):
    """One command of the table."""

    function: str
    """Where its function is, as `MODULE:NAME`: its parameters are the command's options."""
    summary: str
    """What the list of commands says about it."""

    def load(self) -> Callable[..., None]:
        """Import the function."""
        function: Callable[..., None] = pkgutil.resolve_name(self.function)
        return function


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "quickstart": Command(
            "adanat.commands.flow:quickstart",
            "The whole loop on real images in minutes, ending with a table and a page of pictures.",
        ),
        "prepare": Command(
            "adanat.commands.datasets:prepare",
            "Make a benchmark's data set ready: once, in parallel, resumable.",
        ),
        "train": Command(
            "adanat.commands.benchmarks:train",
            "Run a benchmark's flow up to a stage. The same command goes on where it was stopped.",
        ),
        "doctor": Command(
            "adanat.commands.benchmarks:doctor",
            "Look at machine and data and time a step of each stage, before days are spent.",
        ),
        "run": Command(
            "adanat.commands.flow:run_all",
            "All stages in order. Finished ones do nothing, interrupted ones go on.",
        ),
        "make-emoji-scenes": Command(
            "adanat.commands.datasets:make_emoji_scenes",
            "Make a captioned data set: emoji on coloured grounds, as img2dataset-style shards.",
        ),
        "data": Command("adanat.commands.stages:data", "Write the data set as webdataset shards."),
        "train-tokenizer": Command(
            "adanat.commands.stages:train_tokenizer",
            "Train the tokenizer: images to grids of codes.",
        ),
        "tokenize": Command(
            "adanat.commands.stages:tokenize", "Encode all images into memory-mapped stores."
        ),
        "train-generator": Command(
            "adanat.commands.stages:train_generator",
            "Train the non-autoregressive transformer on the codes.",
        ),
        "search-schedule": Command(
            "adanat.commands.stages:search_schedule",
            "Find the best hand-made schedule of a grid on validation images.",
        ),
        "search-static": Command(
            "adanat.commands.stages:search_static",
            "Search the best schedule for all images without gradients, at a policy's budget. "
            "With --static-search.included, `run` does so and the evaluation compares it.",
        ),
        "train-policy": Command(
            "adanat.commands.stages:train_policy",
            "Train the policies by PPO against the adversarial reward.",
        ),
        "search-more-steps": Command(
            "adanat.commands.stages:search_more_steps",
            "Tune the schedule again at more steps: what the policies are measured against.",
        ),
        "sample": Command("adanat.commands.pictures:sample", "Draw pictures from a finished run."),
        "export-pipeline": Command(
            "adanat.commands.pictures:export_pipeline",
            "Save tokenizer, transformer and policy, if there is one, of a run as one folder for "
            "NATPipeline.",
        ),
        "evaluate": Command(
            "adanat.commands.stages:evaluate",
            "Score all policies on test images, paired, over several seeds. "
            "With a path in place of the recipe: judge any images, see `evaluate PATH --help`.",
        ),
        "check-captions": Command(
            "adanat.commands.captions:check_captions",
            "Score samples for their own captions and for others, beside real images.",
        ),
        "compare": Command(
            "adanat.evaluation.commands:compare",
            "Policies and step counts side by side: quality against cost, as tables and a figure.",
        ),
        "study-rewards": Command(
            "adanat.commands.studies:study_rewards",
            "Compare policies trained for different rewards; goes on where it was stopped.",
        ),
        "study-adaptivity": Command(
            "adanat.commands.studies:study_adaptivity",
            "Compare policies with the schedules they must beat, at several numbers of steps.",
        ),
        "study-length": Command(
            "adanat.commands.studies:study_length",
            "Train policies at several prices of a decoding step: quality over network passes.",
        ),
        "report": Command(
            "adanat.commands.flow:report",
            "Write metrics.json, report.html, results.md and figures of an evaluated run.",
        ),
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script `adanat`; exits with 1 on an error of the user's side."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _choose(given[:1])
    _show_logs()
    try:
        _run(name, given[1:])
    except (AdanatError, OSError, ValueError) as error:
        print(f"adanat: error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _show_logs() -> None:
    """Let one process tell on stderr what `natgen` logs: which attention kernels serve, and why."""
    if os.environ.get("RANK", "0") == "0":
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("natgen").setLevel(logging.INFO)


def _choose(first: Sequence[str]) -> str:
    """The command that the first argument names; exits with the list of them, or an error."""

    def choice(name: str, summary: str) -> Callable[[], str]:
        def choose() -> str:
            return name

        choose.__doc__ = summary
        return choose

    chosen: str = tyro.extras.subcommand_cli_from_dict(
        {name: choice(name, command.summary) for name, command in COMMANDS.items()},
        prog="adanat",
        description="AdaNAT from raw images to the evaluated policy.",
        args=first,
    )
    return chosen


def _run(name: str, arguments: Sequence[str]) -> None:
    """Run a command with what follows its name."""
    if name == "evaluate":
        from adanat.evaluation import evaluate_path, names_path  # with PyTorch

        if names_path(arguments):
            evaluate_path(arguments)
            return
    function = COMMANDS[name].load()
    tyro.cli(
        function,
        prog=f"adanat {name}",
        description=inspect.getdoc(function) or COMMANDS[name].summary,
        args=arguments,
        config=_CONFIG,
    )


_CONFIG: tuple[Any, ...] = (
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.CascadeSubcommandArgs,
)
