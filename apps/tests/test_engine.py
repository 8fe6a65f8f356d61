"""Several processes give what one gives: gradients, metrics, weights, images.

Also after a kill, and with the weights sharded over them.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import late_process
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
    torch.save(several_processes.everything(AccelerateEngine(), folder), folder / "out.pt")
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
    assert_sharded(found["sharded"].pop("held"), expected["sharded"].pop("held"), processes)
    for name, rows in expected["decoded"].items():
        assert torch.equal(found["decoded"][name], rows), name
    assert_equal(found, expected)
    rows, expected_rows = (read_metrics(f / "nat") for f in (folder, alone))
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows] == [2, STEPS]
    assert_equal(rows, expected_rows)
    assert_equal(*(read_metrics(f / "sharded") for f in (folder, alone)))


def assert_sharded(held: list[int], alone: list[int], processes: int) -> None:
    """What process 0 held in the sessions, of which all but the first were sharded."""
    assert held[0] == alone[0]
    for some, whole in zip(held[1:], alone[1:], strict=True):
        assert some < 1.05 * whole / processes  # step counters and odd rows are not divided


def assert_goes_on_alone(folder: Path, alone: Path, tmp_path: Path) -> None:
    """A checkpoint of sharded weights serves one process without sharding."""
    steps = []
    for name, source in (("found", folder), ("expected", alone)):
        shutil.copytree(source / "sharded", tmp_path / name)
        engine = AccelerateEngine()
        steps.append(
            several_processes.session(engine, tmp_path / name, STEPS + 1, sharded=False)["metrics"]
        )
    assert len(steps[0]) == 1
    assert_equal(*steps)


@pytest.mark.slow  # every process imports torch
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_what_one_gives(tmp_path: Path, alone: Path, processes: int) -> None:
    run(tmp_path, processes)
    assert_same_run(tmp_path, alone, processes)
    assert_goes_on_alone(tmp_path, alone, tmp_path)


@pytest.mark.slow
def test_a_killed_process_is_started_again_to_the_same_result(tmp_path: Path, alone: Path) -> None:
    run(tmp_path, 2, f"--die-at={STEPS - 1}", restarts=1)
    found, expected = (torch.load(f / "out.pt", weights_only=True) for f in (tmp_path, alone))
    assert len(found["nat"]["metrics"]) == STEPS - 2  # the second attempt went on from step 2
    assert_equal(found["nat"]["weights"], expected["nat"]["weights"])


@pytest.mark.slow
def test_work_of_one_process_is_waited_for_and_a_lost_one_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [late_process.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "waited, then gave up\n", done.stderr


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
