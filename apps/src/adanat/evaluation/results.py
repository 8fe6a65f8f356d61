"""The file that an evaluation leaves: every figure with how it was measured."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adanat.checkpoints import atomic_write_json, read_json
from adanat.errors import DataError
from adanat.evaluation.scoring import Figure

_FORMAT = 2
NETWORKS = ("transformer", "policy", "decoder", "features")
"""Keys of `EvaluationResult.seconds` that count passes of networks."""
_LIBRARIES = ("adanat", "clean-fid", "numpy", "scipy", "torch", "torch-fidelity")


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """One judged source.

    Attributes:
        source: What was judged.
        reference: What it was compared with; None where nothing was.
        reference_sha256: Hash of that content: only figures of one reference are compared.
        num_samples: Generated images a seed.
        label_plan: Which labels or captions; None for given images.
        policy: Name of the decoding policy; None for given images.
        num_steps: Its decoding steps; None for given images.
        seeds: Generation seeds; empty for given images.
        figures: The numbers.
        cost: What an image cost, see `CostPerImage`; None for given images.
        seconds: Wall time by part, see `docs/evaluation.md`; that of images and features is summed
            over processes, and over the evaluations that left them in the cache.
        peak_memory_gb: Resident memory of the first process at its highest, in 10^9 bytes.
    """

    source: str
    reference: str | None
    reference_sha256: str | None
    num_samples: int
    label_plan: str | None
    policy: str | None
    num_steps: int | None
    seeds: tuple[int, ...]
    figures: tuple[Figure, ...]
    cost: Mapping[str, float | int | str] | None
    seconds: Mapping[str, float]
    peak_memory_gb: float

    @property
    def network_share(self) -> float:
        """Share of all seconds that networks took, in [0, 1]."""
        return sum(self.seconds.get(name, 0.0) for name in NETWORKS) / sum(self.seconds.values())

    def save(self, path: Path) -> None:
        """Write the result as JSON. Raises StorageError."""
        versions = {name: version(name) for name in _LIBRARIES}
        atomic_write_json(
            path,
            {
                "format": _FORMAT,
                **asdict(self),
                "versions": {"python": platform.python_version(), **versions},
                "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
            },
        )

    @classmethod
    def load(cls, path: Path) -> "EvaluationResult":
        """Read what `save` wrote.

        Raises:
            DataError: The file is something else.
            StorageError: It cannot be read.
        """
        found: dict[str, Any] = read_json(path)
        try:
            if found["format"] != _FORMAT:
                raise DataError(f"{path} has format {found['format']}; {_FORMAT} is read")
            fields = {name: found[name] for name in cls.__dataclass_fields__}
            figures = tuple(Figure(**figure) for figure in found["figures"])
            return cls(**fields | {"figures": figures, "seeds": tuple(found["seeds"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} is no result of an evaluation ({error!r})") from error

    def text(self) -> str:
        """The figures as lines for a terminal, the protocol with each."""
        lines = [self.source] + ([f"against {self.reference}"] if self.reference else [])
        for figure in self.figures:
            spread = ""
            if figure.low is not None and figure.high is not None:
                spread = f" [{figure.low:.6g}, {figure.high:.6g}], {figure.interval}"
            lines.append(
                f"  {figure.key:<18} {figure.value:.6g}{spread}  ({figure.num_samples} samples"
                f"{figure.against}; {figure.protocol}; {figure.extractor['resize']})"
            )
        if self.cost is not None:
            lines.append("  " + ", ".join(f"{k} {_short(v)}" for k, v in self.cost.items()))
        lines.append(
            f"  {sum(self.seconds.values()):.0f} s, {self.network_share:.0%} of them in networks; "
            f"at most {self.peak_memory_gb:.2g} GB of memory"
        )
        return "\n".join(lines)


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
