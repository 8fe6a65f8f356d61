"""Several evaluations side by side: read, checked for comparability, paired over seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat.checkpoints import read_json
from adanat.errors import DataError
from adanat.evaluation.results import EvaluationResult
from adanat.metrics import Interval, paired_gain, t_interval
from adanat.run_folder import RunFolder
from adanat.runs import CONFIG_FILE, DONE_FILE, fingerprint, refuse_stale

COSTS: Mapping[str, str] = {
    "network_passes": "network passes / image",
    "gflops": "GFLOPs / image",
    "milliseconds": "ms / image",
    "images_per_second": "images / s",
    "peak_memory_gb": "peak memory, GB",
    "policy_time_share": "policy's share of the time",
}
"""Columns of cost with their headings, in the order of the tables."""
_HIGHER_IS_BETTER = (
    *("precision", "recall", "density", "coverage", "score"),
    *("psnr", "ssim", "usage", "perplexity"),
)
_CLASSIFIER = "classifier_"
_STEPS = re.compile(r"_T\d+$")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure of one entry.

    Attributes:
        value: Mean over seeds.
        by_seed: The values behind it.
        low: Lower end of the 95 % interval; None without one.
        high: Upper end.
        basis: What the figure depends on beside the images; only equal ones are compared.
    """

    value: float
    by_seed: Mapping[str, float]
    low: float | None
    high: float | None
    basis: str

    @property
    def half_width(self) -> float | None:
        """Half the interval's length."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a comparison.

    Attributes:
        name: Unique in the comparison.
        family: Entries of one family differ in the number of steps; a curve joins them.
        num_steps: Decoding steps; None for given images.
        scores: By figure.
        cost: By the keys of `COSTS`, as far as known.
    """

    name: str
    family: str
    num_steps: int | None
    scores: Mapping[str, Score]
    cost: Mapping[str, float]


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read results of `adanat evaluate`: JSON files, or folders of finished runs.

    Raises:
        DataError: A path is neither, or figures of one name were measured differently.
    """
    if not paths:
        raise DataError("nothing to compare: name files of results or folders of evaluated runs")
    entries: list[Entry] = []
    for path in paths:
        entries += _of_run(path) if path.is_dir() else [_of_file(path)]
    names = [entry.name for entry in entries]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{', '.join(sorted(repeated))} given twice: rename one of the files")
    _refuse_mixture(entries)
    return entries


def gain(baseline: Entry, entry: Entry, metric: str) -> Interval | None:
    """What the entry is better by, over the seeds that both have; None with fewer than two."""
    if metric not in baseline.scores or metric not in entry.scores:
        return None
    before, after = baseline.scores[metric].by_seed, entry.scores[metric].by_seed
    seeds = sorted(before.keys() & after.keys())
    if len(seeds) < 2:
        return None
    worse, better = (after, before) if _higher_is_better(metric) else (before, after)
    return paired_gain([worse[s] for s in seeds], [better[s] for s in seeds])


def _higher_is_better(key: str) -> bool:
    return key.endswith(_HIGHER_IS_BETTER)


def _of_file(path: Path) -> Entry:
    result = EvaluationResult.load(path)
    name = path.stem
    cost, sha256 = result.cost or {}, result.reference_sha256
    reference = "" if sha256 is None else f" (SHA-256 {sha256[:8]})"
    return Entry(
        name=name,
        family=_STEPS.sub("", name),
        num_steps=result.num_steps,
        scores={
            figure.key: Score(
                value=figure.value,
                by_seed=figure.by_seed,
                low=figure.low,
                high=figure.high,
                basis=(
                    f"{figure.num_samples} samples, {result.label_plan or 'given images'}"
                    f"{figure.against}{reference}; {figure.extractor['network']}, "
                    f"{figure.extractor['resize']}"
                ),
            )
            for figure in result.figures
        },
        cost={key: float(cost[key]) for key in COSTS if key in cost},
    )


def _of_run(path: Path) -> list[Entry]:
    done = RunFolder(path).evaluation / DONE_FILE
    if not done.is_file():
        raise DataError(f"{path} is no evaluated run ({done} is missing): run `adanat evaluate`")
    refuse_stale(done.parent, RunFolder(path).of_stage)
    results = read_json(done)["results"]
    protocol = results["protocol"]
    basis = (
        f"{protocol['num_samples']} samples, {protocol['label_plan']}, against "
        f"{protocol['reference']} of {_data_of(path)}; {protocol['features']}"
    )
    by_policy: dict[str, list[dict[str, Any]]] = {}
    for row in results["scores"]:
        # Every run trains a classifier of its own, so that its figure means nothing beside another.
        own = {f"{key} of {path.name}": row[key] for key in row if key.startswith(_CLASSIFIER)}
        others = {key: row[key] for key in row if not key.startswith(_CLASSIFIER)}
        by_policy.setdefault(row["policy"], []).append(others | own)
    return [_of_rows(f"{path.name}/{name}", rows, basis) for name, rows in by_policy.items()]


def _data_of(run: Path) -> str:
    """The data set of a run, with a hash of what decides its images."""
    folder = RunFolder(run).data
    config = read_json(folder / CONFIG_FILE)["config"]
    prepared = read_json(folder / DONE_FILE)["results"].get("fingerprint")
    return f"{config['source']} ({fingerprint([config, prepared])[:8]})"


def _of_rows(name: str, rows: Sequence[Mapping[str, Any]], basis: str) -> Entry:
    keys = [key for key in rows[0] if key not in ("policy", "seed", "num_steps", *COSTS)]
    scores = {}
    for key in keys:
        values = {str(row["seed"]): float(row[key]) for row in rows}
        interval = t_interval(list(values.values())) if len(values) > 1 else None
        scores[key] = Score(
            value=sum(values.values()) / len(values),
            by_seed=values,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            basis=basis,
        )
    known = [key for key in COSTS if key in rows[0]]
    cost = {key: sum(float(row[key]) for row in rows) / len(rows) for key in known}
    if "images_per_second" in cost:
        cost["milliseconds"] = 1000 / cost["images_per_second"]
    return Entry(
        name=name,
        family=_STEPS.sub("", name),
        num_steps=rows[0]["num_steps"],
        scores=scores,
        cost=cost,
    )


def _refuse_mixture(entries: Sequence[Entry]) -> None:
    bases: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for key, score in entry.scores.items():
            first, basis = bases.setdefault(key, (entry.name, score.basis))
            if basis != score.basis:
                raise DataError(
                    f"{key} cannot be compared: {first} has it over {basis}, but {entry.name} over "
                    f"{score.basis}"
                )
