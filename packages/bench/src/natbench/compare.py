"""Compares two result files in units of what each machine could do in that very run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natbench.calibration import Calibration, Work

DEFAULT_THRESHOLD = 1.3

# What must be equal for two files to be comparable at all.
_SETTINGS = ("preset", "batch_size", "precision", "clock")


@dataclass(frozen=True)
class Change:
    """One benchmark in both files."""

    name: str
    old_seconds: float
    new_seconds: float
    machine: float
    """How many times as long the old file's work would take at the new file's ceilings."""

    @property
    def ratio(self) -> float:
        """New over old time, with the machine's part taken out; above 1 is slower."""
        return self.new_seconds / self.old_seconds / self.machine


@dataclass(frozen=True)
class Comparison:
    """All benchmarks of two files."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    """In the old file alone."""
    added: tuple[str, ...]
    """In the new file alone."""
    threshold: float

    @property
    def slower(self) -> tuple[Change, ...]:
        """Those past the threshold."""
        return tuple(change for change in self.changes if change.ratio > self.threshold)

    @property
    def passed(self) -> bool:
        """Nothing is past the threshold, and nothing has gone."""
        return not self.slower and not self.missing

    def table(self) -> str:
        """One line a benchmark, the slowest first, and the verdict."""
        width = max((len(change.name) for change in self.changes), default=0)
        lines = [f"{'benchmark':{width}}  old ms   new ms   machine  ratio"]
        for change in sorted(self.changes, key=lambda change: -change.ratio):
            mark = "  SLOWER" if change.ratio > self.threshold else ""
            lines.append(
                f"{change.name:{width}}  {1e3 * change.old_seconds:7.2f}  "
                f"{1e3 * change.new_seconds:7.2f}  {change.machine:7.2f}  {change.ratio:5.2f}{mark}"
            )
        lines += [f"{name}: not in the new file" for name in self.missing]
        lines += [f"{name}: not in the old file" for name in self.added]
        lines.append(
            f"{len(self.slower)} of {len(self.changes)} slower than {self.threshold} times, "
            f"{len(self.missing)} missing"
        )
        return "\n".join(lines)


def compare(old: Path, new: Path, *, threshold: float = DEFAULT_THRESHOLD) -> Comparison:
    """Compare the fastest round of each benchmark.

    The machine's part is the old file's work (operations, bytes, calls) at the new file's ceilings
    over the same at the old file's: a benchmark that spends its time on matrix products is
    corrected by those, one that issues small calls by these.

    Args:
        old: result file of `natbench run --output`.
        new: likewise, of the same preset, batch size, precision and clock; of any GPU where the
            old one is of a GPU.
        threshold: the highest ratio that passes.

    Raises:
        ValueError: the files cannot be compared, or share no benchmark.
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    before, after = _read(old), _read(new)
    differing = [
        f"{key} is {before[0].get(key)!r} and {after[0].get(key)!r}"
        for key in _SETTINGS
        if before[0].get(key) != after[0].get(key)
    ]
    devices = [settings.get("device") for settings, _ in (before, after)]
    if devices[0] != devices[1] and "cpu" in devices:
        differing.append(f"device is {devices[0]!r} and {devices[1]!r}")
    if differing:
        raise ValueError(f"{old} and {new} cannot be compared: {', '.join(differing)}")
    shared = [name for name in before[1] if name in after[1]]
    if not shared:
        raise ValueError(f"{old} and {new} have no benchmark in common")
    return Comparison(
        changes=tuple(_change(name, before[1][name], after[1][name]) for name in shared),
        missing=tuple(name for name in before[1] if name not in after[1]),
        added=tuple(name for name in after[1] if name not in before[1]),
        threshold=threshold,
    )


def _change(name: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    work = Work(**old["extra_info"]["work"])
    ceilings = [Calibration(**result["extra_info"]["calibration"]) for result in (old, new)]
    at_old, at_new = (work.floor_seconds(each) for each in ceilings)
    return Change(
        name=name,
        old_seconds=old["stats"]["min"],
        new_seconds=new["stats"]["min"],
        machine=at_new / at_old,
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings, and results by name."""
    results = json.loads(path.read_text())
    try:
        settings = results["machine_info"]["natbench"]
        benchmarks = {result["name"]: result for result in results["benchmarks"]}
    except KeyError as error:
        raise ValueError(f"{path} is no result file of `natbench run`: no {error}") from error
    return settings, benchmarks
