"""How much the numbers that a policy chooses differ between samples, and between classes."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from natgen import COMPONENTS
from safetensors.numpy import load_file, save_file

from adanat.judge import Judge
from adanat.report_data import ValueArray
from adanat.run import Run
from adanat.runs import Stage
from adanat.seeding import derive_seed
from adanat.studies import pages

_FILE = "chosen.safetensors"


class Chosen(NamedTuple):
    """What a policy chose for N samples."""

    parameters: ValueArray
    """(N, T, 4) in the order of natgen.COMPONENTS."""
    groups: ValueArray
    """(N,) class of each sample, or the number of its caption."""


def choose(run: Run, seed: int) -> tuple[Stage, Path]:
    """Let the policy of one seed decode test samples and keep what it chose.

    Returns:
        The finished stage, and the file that `read` reads.
    """
    recipe = run.recipe
    stage = Stage(
        "differences",
        run.output_dir / "differences",
        {"policy": seed, "num_samples": recipe.evaluation.num_samples},
        depends_on=[run.stages.policies[seed]],
        processes=run.engine,
    )
    path = stage.folder / _FILE
    if stage.is_done():
        return stage, path
    with stage:
        if run.engine.is_main:
            judge = Judge(run, split="test")
            batches = judge.generator.batches(
                run.policy(seed),
                seed=derive_seed(recipe.seed, "test"),
                num_samples=recipe.evaluation.num_samples,
            )
            parameters = torch.cat([batch.generation.parameters.cpu() for batch in batches])
            groups = judge.conditions.numbers(torch.arange(len(parameters)))
            save_file({"parameters": parameters.numpy(), "groups": groups.numpy()}, path)
            stage.finish({"num_samples": len(parameters)})
    return stage, path


def read(path: Path) -> Chosen:
    """What `choose` kept."""
    return Chosen(**load_file(path))


def class_share(chosen: Chosen) -> ValueArray:
    """Share of the variance between samples that lies between groups, (T, 4) in [0, 1].

    It is eta squared of a one-way analysis of variance; 0 where nothing varies.
    """
    values, groups = chosen.parameters.astype(np.float64), chosen.groups
    mean = values.mean(axis=0)
    total = np.square(values - mean).sum(axis=0)
    between = np.zeros_like(mean)
    for group in np.unique(groups):
        members = values[groups == group]
        between += len(members) * np.square(members.mean(axis=0) - mean)
    varies = total > 1e-10 * len(values) * np.maximum(1.0, np.square(mean))
    return np.where(varies, between / np.where(varies, total, 1.0), 0.0)


def table(
    chosen: Chosen, active: ValueArray, names: list[str] | None
) -> tuple[str, list[dict[str, Any]]]:
    """A Markdown table of steps and numbers, and its rows as data.

    Args:
        chosen: what a policy chose.
        active: (T, 4), nonzero for the numbers that the policy sets; the others are left out.
        names: of the groups; None where each sample is a group of its own.
    """
    means, spreads = chosen.parameters.mean(axis=0), chosen.parameters.std(axis=0)
    shares = class_share(chosen)
    rows: list[dict[str, Any]] = []
    for step, index in np.argwhere(active).tolist():
        row: dict[str, Any] = {
            "step": step + 1,
            "number": COMPONENTS[index],
            "mean": float(means[step, index]),
            "std_between_samples": float(spreads[step, index]),
        }
        if names is not None:
            of_groups = {
                names[int(group)]: float(
                    chosen.parameters[chosen.groups == group, step, index].mean()
                )
                for group in np.unique(chosen.groups)
            }
            row["share_between_classes"] = float(shares[step, index])
            row["mean_by_class"] = of_groups
        rows.append(row)
    header = ["number", "step", "mean", "std between samples"]
    if names is not None:
        header += ["share between classes", "lowest class", "highest class"]
    return pages.table(header, [_cells(row) for row in rows]), rows


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [row["number"], str(row["step"]), f"{row['mean']:.3f}"]
    cells.append(f"{row['std_between_samples']:.4f}")
    if "mean_by_class" in row:
        means = row["mean_by_class"]
        cells.append(f"{row['share_between_classes']:.2f}")
        for extreme in (min(means, key=means.__getitem__), max(means, key=means.__getitem__)):
            cells.append(f"{extreme} ({means[extreme]:.3f})")
    return cells
