"""A slower machine raises no alarm, slower code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from natbench import compare
from natbench.cli import main

FAST = {"flops_per_second": 1e11, "bytes_per_second": 2e10, "calls_per_second": 4e5}
WORK = {
    "matrix": {"flops": 10**9, "bytes": 10**3, "calls": 1},
    "copying": {"flops": 0, "bytes": 10**9, "calls": 1},
    "calls": {"flops": 0, "bytes": 0, "calls": 1000},
}


def write(
    path: Path, seconds: dict[str, float], ceilings: dict[str, float] = FAST, **settings: object
) -> Path:
    results = {
        "machine_info": {
            "natbench": {"preset": "tiny", "batch_size": 4, "precision": "fp32", **settings}
        },
        "benchmarks": [
            {
                "name": name,
                "stats": {"min": value},
                "extra_info": {"calibration": ceilings, "work": WORK[name]},
            }
            for name, value in seconds.items()
        ],
    }
    path.write_text(json.dumps(results))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old.json", {"matrix": 0.02, "copying": 0.1, "calls": 0.003})


@pytest.mark.parametrize(
    ("ceiling", "bound"),
    [
        ("flops_per_second", "matrix"),
        ("bytes_per_second", "copying"),
        ("calls_per_second", "calls"),
    ],
)
def test_each_kind_of_work_is_corrected_by_its_own_ceiling(
    tmp_path: Path, old: Path, ceiling: str, bound: str
) -> None:
    seconds = {"matrix": 0.02, "copying": 0.1, "calls": 0.003}
    seconds[bound] *= 3
    slower_machine = {**FAST, ceiling: FAST[ceiling] / 3}
    comparison = compare(old, write(tmp_path / "new.json", seconds, slower_machine))
    assert comparison.passed
    for change in comparison.changes:
        assert change.machine == pytest.approx(3 if change.name == bound else 1, rel=1e-3)
        assert change.ratio == pytest.approx(1, rel=1e-3)


def test_slower_code_fails_and_the_exit_code_says_so(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write(tmp_path / "new.json", {"matrix": 0.025, "copying": 0.1, "calls": 0.003})
    assert [change.name for change in compare(old, new, threshold=1.2).slower] == ["matrix"]
    assert compare(old, new, threshold=1.26).passed
    assert main(["compare", str(old), str(new)]) == 0
    assert main(["compare", str(old), str(new), "--threshold=1.2"]) == 1
    assert "1.25  SLOWER" in capsys.readouterr().out


def test_a_benchmark_that_has_gone_fails(tmp_path: Path, old: Path) -> None:
    new = write(tmp_path / "new.json", {"matrix": 0.02, "calls": 0.003})
    comparison = compare(old, new)
    assert not comparison.passed
    assert comparison.missing == ("copying",)
    assert compare(new, old).passed
    assert compare(new, old).added == ("copying",)


def test_the_command_says_in_a_line_what_it_cannot_compare(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write(tmp_path / "empty.json", {})
    for new, complaint in ((empty, "no benchmark in common"), (tmp_path / "none.json", "No such")):
        with pytest.raises(SystemExit, match="2"):
            main(["compare", str(old), str(new)])
        assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_compared_is_refused(tmp_path: Path, old: Path) -> None:
    other = write(tmp_path / "new.json", {"matrix": 0.02}, precision="bf16")
    with pytest.raises(ValueError, match="precision is 'fp32' and 'bf16'"):
        compare(old, other)
    on_cpu = write(tmp_path / "cpu.json", {"matrix": 0.02}, device="cpu")
    on_gpus = [
        write(tmp_path / f"{name}.json", {"matrix": 0.02}, device=name) for name in ("A100", "H100")
    ]
    with pytest.raises(ValueError, match="device is 'cpu' and 'H100'"):
        compare(on_cpu, on_gpus[1])
    assert compare(*on_gpus).passed
    empty = write(tmp_path / "empty.json", {})
    with pytest.raises(ValueError, match="no benchmark in common"):
        compare(old, empty)
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        compare(old, old, threshold=0)
    stranger = tmp_path / "stranger.json"
    stranger.write_text("{}")
    with pytest.raises(ValueError, match="no result file"):
        compare(old, stranger)
