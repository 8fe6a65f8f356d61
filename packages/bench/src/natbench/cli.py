"""The command line `natbench`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from natgen import nat_l, nat_s
from vqtok import f16_vqgan

from natbench.calibration import CLOCKS
from natbench.compare import DEFAULT_THRESHOLD, compare
from natbench.presets import PRESETS
from natbench.ratio import Contest, Round, measure, picture_seconds, ratios

_SUITES = Path(__file__).parent / "suites"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="natbench", description="Measures the AdaNAT packages.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="throughput suites",
        description="Runs the suites. Further arguments go to pytest and pytest-benchmark, "
        "for example -k generation.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="presets:\n"
        + "\n".join(f"  {name:15} {make().description}" for name, make in PRESETS.items()),
    )
    run.add_argument("--preset", choices=list(PRESETS), default="laptop")
    run.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N")
    run.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    run.add_argument("--batch-size", type=int, help="instead of the preset's")
    run.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time, which other work on the machine hardly disturbs; "
        "for one thread on the CPU",
    )
    run.add_argument("--output", type=Path, help="write the results to this JSON file")

    against = commands.add_parser(
        "compare",
        help="fail where a result has become slower",
        description="Compares two result files, each time in units of what its machine could do "
        "in that very run, so that a slower machine raises no alarm.",
    )
    against.add_argument("old", type=Path)
    against.add_argument("new", type=Path)
    against.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        help="fail above this ratio of corrected times (default %(default)s)",
    )

    pairs = commands.add_parser(
        "ratio",
        help="natgen against the published loop, pairwise, on the CPU",
        description="Prints one JSON line: how many times as fast as the published loop natgen "
        "decodes, L and S at 256 pixels, batch 4, fp32, guided, T = 4 and 8. Tokens alone; the "
        "seconds of each round, and the ratios with the pictures, go to the error stream.",
    )
    pairs.add_argument(
        "--minutes",
        type=float,
        default=22.0,
        help="no turn begins that would end later (default %(default)s); one is always made",
    )
    for command in (run, pairs):
        command.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    return parser


def _device(name: str) -> str:
    """An argument's device, refused where there are no ceilings and nothing to wait with."""
    if name.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{name} is not measured: give auto, cpu, cuda or cuda:N")
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen command; returns its exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if getattr(options, "threads", None) is not None:
        torch.set_num_threads(options.threads)
    if options.command == "compare":
        try:
            comparison = compare(options.old, options.new, threshold=options.threshold)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        print(comparison.table())
        return 0 if comparison.passed else 1
    if options.command == "ratio":
        return _ratio(options.minutes)
    return _run(options, rest)


def _run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.clock == "cpu" and (device != "cpu" or torch.get_num_threads() > 1):
        raise SystemExit(
            f"--clock cpu adds up the time of all threads and sees no GPU, got {device} and "
            f"{torch.get_num_threads()} threads: add --device cpu --threads 1"
        )
    command = [
        str(_SUITES),
        *("-c", str(_SUITES / "pytest.ini")),
        *("-p", "natbench.plugin"),
        f"--preset={options.preset}",
        f"--device={device}",
        f"--precision={options.precision}",
        f"--clock={options.clock}",
        f"--benchmark-timer=time.{CLOCKS[options.clock].__name__}",
        "--benchmark-columns=min,median,iqr,rounds",
        "--benchmark-sort=name",
    ]
    if options.batch_size is not None:
        command.append(f"--batch-size={options.batch_size}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        command.append(f"--benchmark-json={options.output}")
    return int(pytest.main([*command, *rest]))


def _ratio(minutes: float) -> int:
    contests = [
        Contest(name=f"{size}256_T{num_steps}", nat=nat, num_steps=num_steps)
        for size, nat in (("L", nat_l()), ("S", nat_s()))
        for num_steps in (4, 8)
    ]
    rounds = measure(contests, seconds=60 * minutes)
    for name, measured in rounds.items():
        _print_rounds(name, measured)
    besides = picture_seconds(f16_vqgan(), contests[0].batch_size)
    pictures = _rounded(ratios(rounds, besides=besides))
    print(f"with {besides:.2f} s for the pictures: {json.dumps(pictures)}", file=sys.stderr)
    print(json.dumps(_rounded(ratios(rounds))))
    return 0


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def _print_rounds(name: str, rounds: Sequence[Round]) -> None:
    for side in Round._fields:
        seconds = " ".join(f"{getattr(each, side):.2f}" for each in rounds)
        print(f"{name} {side}: {seconds} s", file=sys.stderr)
