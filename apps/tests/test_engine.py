"""Several processes give what one gives: gradients, metrics, weights, images; also after a kill."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import several_processes
import torch
from adanat.engine import AccelerateEngine
from adanat.metrics_log import read_metrics
from several_processes import STEPS


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    torch.save(several_processes.everything(AccelerateEngine(), folder / "nat"), folder / "out.pt")
    return folder


def run(folder: Path, processes: int, *arguments: str, restarts: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    command += [several_processes.__file__, str(folder / "out.pt"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_equal(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_equal(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for number, value in enumerate(expected):
            assert_equal(found[number], value, f"{where}[{number}]")
    else:  # sums in another order
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=2e-5, msg=lambda text: f"{where}: {text}"
        )


def assert_same_run(folder: Path, alone: Path, processes: int) -> None:
    found, expected = (torch.load(f / "out.pt", weights_only=True) for f in (folder, alone))
    assert found["processes"] == processes
    assert torch.equal(found["decoded"]["images"], expected["decoded"]["images"])
    assert_equal(found, expected)
    rows, expected_rows = (read_metrics(f / "nat") for f in (folder, alone))
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows] == [2, STEPS]
    assert_equal(rows, expected_rows)


@pytest.mark.slow  # every process imports torch
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_what_one_gives(tmp_path: Path, alone: Path, processes: int) -> None:
    run(tmp_path, processes)
    assert_same_run(tmp_path, alone, processes)


@pytest.mark.slow
def test_a_killed_process_is_started_again_to_the_same_result(tmp_path: Path, alone: Path) -> None:
    run(tmp_path, 2, f"--die-at={STEPS - 1}", restarts=1)
    found, expected = (torch.load(f / "out.pt", weights_only=True) for f in (tmp_path, alone))
    assert len(found["nat"]["metrics"]) == STEPS - 2  # the second attempt went on from step 2
    assert_equal(found["nat"]["weights"], expected["nat"]["weights"])


def test_one_process_alone() -> None:
    engine = AccelerateEngine()
    model = torch.nn.Linear(2, 1)
    engine.follow(model)
    engine.backward(model(torch.ones(3, 2)).mean())
    torch.testing.assert_close(model.weight.grad, torch.ones(1, 2))
    assert (engine.num_processes, engine.process_index, engine.is_main) == (1, 0, True)
    assert engine.rows(7) == slice(0, 7)
    assert engine.mean({"a": 1.5}) == {"a": 1.5}
    assert engine.largest(3) == 3
    engine.wait()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"precision must be one of .*, got 'fp8'"):
        AccelerateEngine("fp8")  # type: ignore[arg-type]


def test_unequal_shares_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AccelerateEngine, "num_processes", 3)
    with pytest.raises(ValueError, match="a batch of 8 cannot be shared equally by 3 processes"):
        AccelerateEngine().rows(8)
