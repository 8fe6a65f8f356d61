"""What a run has left, for comparing runs."""

import json
from pathlib import Path
from typing import Any

from adanat.checkpoints import complete_steps

_CLOCK = ("seconds", "images_per_second")


def measured(folder: Path) -> dict[str, Any]:
    """metrics.json without what depends on the clock."""
    found: dict[str, Any] = _without_clock(json.loads((folder / "metrics.json").read_text()))
    return found


def progress(folder: Path) -> dict[str, int]:
    """Finished stages (1 each) and the last complete step of each training, by path."""
    done = {str(path.relative_to(folder)): 1 for path in folder.rglob("done.json")}
    trainings = {path: complete_steps(path) for path in folder.rglob("checkpoints")}
    return done | {str(p.relative_to(folder)): steps[-1] for p, steps in trainings.items() if steps}


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_clock(v) for k, v in value.items() if k not in _CLOCK}
    return value
