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
from adanat.evaluation.figures import Figure

_FORMAT = 1
_LIBRARIES = ("adanat", "clean-fid", "numpy", "scipy", "torch", "torch-fidelity")


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """One judged source.

    Attributes:
        source: What was judged.
        reference: What it was compared with; None where nothing was.
        num_samples: Generated images a seed.
        label_plan: Which labels or captions; None for given images.
        policy: Name of the decoding policy; None for given images.
        num_steps: Its decoding steps; None for given images.
        seeds: Generation seeds; empty for given images.
        figures: The numbers.
        cost: What an image cost, see `CostPerImage`; None for given images.
        seconds: Wall time by part, summed over processes.
    """

    source: str
    reference: str | None
    num_samples: int
    label_plan: str | None
    policy: str | None
    num_steps: int | None
    seeds: tuple[int, ...]
    figures: tuple[Figure, ...]
    cost: Mapping[str, float | int | str] | None
    seconds: Mapping[str, float]

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
            real = "" if figure.num_reference is None else f" against {figure.num_reference} real"
            lines.append(
                f"  {figure.key:<18} {figure.value:.6g}{spread}  ({figure.num_samples} samples"
                f"{real}; {figure.protocol}; {figure.extractor['resize']})"
            )
        if self.cost is not None:
            lines.append("  " + ", ".join(f"{k} {_short(v)}" for k, v in self.cost.items()))
        return "\n".join(lines)


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
