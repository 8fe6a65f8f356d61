"""The command lines that lead to what a run folder holds."""

import shlex
from collections.abc import Mapping
from typing import Any

from adanat.recipes import RECIPES
from adanat.recipes.benchmarks import BENCHMARKS
from adanat.run import Run
from adanat.runs import config_to_json


def command(name: str, run: Run, *options: str) -> str:
    """The command line of what is done with a run.

    Args:
        name: of the command, such as `study-rewards`.
        run: its folders, and where its recipe differs from the one of its name, become options.
        options: the command's own.
    """
    recipe = run.recipe
    words = ["adanat", name, recipe.name, "--output-dir", str(run.output_dir)]
    if run.data_dir is not None:
        words += ["--data-dir", str(run.data_dir)]
    known = {**RECIPES, **BENCHMARKS}
    if recipe.name in known:
        default = known[recipe.name]()
        words += _changed(config_to_json(recipe), config_to_json(default))
    return shlex.join([*words, *options])


def flow_command(run: Run) -> str:
    """The command line of the whole flow."""
    name = run.recipe.name
    trial = name.removesuffix("-smoke")
    if name not in RECIPES and trial in BENCHMARKS and trial != name:
        return shlex.join(
            ["adanat", "train", trial, "--smoke", "--output-dir", str(run.output_dir)]
        )
    return command("train" if name in BENCHMARKS else "run", run)


def _changed(value: Any, default: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Options that turn one JSON value into another."""
    if value == default:
        return []
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        keys = [key for key in value if key != "type"]
        return [
            word for key in keys for word in _changed(value[key], default.get(key), (*path, key))
        ]
    *groups, name = (part.replace("_", "-") for part in path)
    if isinstance(value, bool):
        return [f"--{'.'.join([*groups, name if value else f'no-{name}'])}"]
    return [f"--{'.'.join([*groups, name])}", *_words(value)]


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    return [str(value)]
