"""The page of a study: Markdown tables, and how the figures came about."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from adanat.checkpoints import atomic_write_json, atomic_write_text
from adanat.report import Value
from adanat.run import Run
from adanat.runs import Stage


def cell(value: Value, digits: int) -> str:
    """A mean with half its interval."""
    spread = "" if value.half_width is None else f" ± {value.half_width:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [
        "| " + " | ".join(header) + " |",
        "| --- |" + " ---: |" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def protocol(run: Run, command: str, stages: Sequence[Stage]) -> str:
    """How the figures of a study were measured, with the seconds of its stages."""
    evaluation, seeds = run.recipe.evaluation, run.recipe.policy.seeds
    device = (
        torch.cuda.get_device_name(run.device)
        if run.device.type == "cuda"
        else f"{os.cpu_count()} CPU cores ({platform.machine()})"
    )
    lines = [
        f"- Command: `{command}`",
        f"- {evaluation.num_samples} samples for each of the generation seeds "
        f"{', '.join(map(str, evaluation.seeds))}, against test images; the same labels and noise "
        "for all policies.",
        f"- Policy seeds {', '.join(map(str, seeds))}. ± is half the 95 % interval: over policy "
        "seeds for what was trained with several, otherwise over generation seeds.",
        f"- {device}; torch {torch.__version__}; precision {run.recipe.precision!r}.",
        "- Seconds: "
        + ", ".join(
            f"`{stage.folder.relative_to(run.output_dir)}` {stage.seconds():.0f}"
            for stage in stages
        )
        + ".",
    ]
    return "\n".join(lines)


def write(folder: Path, name: str, figures: Mapping[str, Any], sections: Sequence[str]) -> Path:
    """Write `NAME.md` and, with all its figures, `figures.json`; returns the page."""
    page = folder / f"{name}.md"
    atomic_write_json(folder / "figures.json", _to_json(figures))
    atomic_write_text(page, "\n\n".join(sections) + "\n")
    return page


def _to_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, list | tuple) else value
