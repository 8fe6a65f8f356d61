"""The command line `natbench`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from natbench.presets import PRESETS

_SUITES = Path(__file__).parent / "suites"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="natbench",
        description="Measures the AdaNAT packages. Further arguments go to pytest and "
        "pytest-benchmark, for example -k generation or --benchmark-compare=before.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="presets:\n"
        + "\n".join(f"  {name:15} {make().description}" for name, make in PRESETS.items()),
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="laptop")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suites; returns pytest's exit code."""
    options, rest = _parser().parse_known_args(arguments)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    command = [
        str(_SUITES),
        *("-c", str(_SUITES / "pytest.ini")),
        *("-p", "natbench.plugin"),
        f"--preset={options.preset}",
        f"--device={device}",
        f"--precision={options.precision}",
        "--benchmark-columns=median,iqr,ops,rounds",
        "--benchmark-sort=name",
    ]
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        command.append(f"--benchmark-json={options.output}")
    return int(pytest.main([*command, *rest]))
