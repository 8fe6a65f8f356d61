"""The whole loop on real digits: same result twice, killed or not; bad input; no half work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_results import measured

pytestmark = pytest.mark.slow

KILL_POINTS = (
    "data/fit-000000.tar",
    "tokenizer/checkpoints/step-000000004/complete.json",
    "tokens/fit/store.json",
    "generator/checkpoints/step-000000008/complete.json",
    "schedule/measured.json",
    "policy/seed-0/checkpoints/step-000000004/complete.json",
    "schedule-more-steps/measured.json",
    "evaluation/classifier",
    "evaluation/scores.json",
    "metrics.json",
)
"""A file of each stage; the run is killed as soon as it appears."""


def adanat(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from adanat.cli import main; main()", *map(str, arguments)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(adanat(*arguments), capture_output=True, text=True, check=False)


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        adanat("run", "tiny", "--output-dir", folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = call("run", "tiny", "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    assert str(folder / "report.html") in done.stdout
    return folder


def test_metrics_and_report_are_complete(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    for policy in ("static", "static_tuned", "adaptive", "adaptive_static"):
        assert metrics[policy]["lite2_fd"] > 0
        assert 0 <= metrics[policy]["lite2_recall"] <= 1
        assert metrics[policy]["network_passes"] > 0
    assert metrics["real_to_real"]["lite2_fd"] < metrics["static"]["lite2_fd"]
    assert metrics["num_samples"] == 80
    assert set(metrics["seconds"]) >= {
        "data",
        "train-tokenizer",
        "tokenize",
        "train-generator",
        "search-schedule",
        "train-policy-0",
        "evaluate",
    }
    page = (finished / "report.html").read_text()
    assert "too few to rank policies" in page
    assert "static_tuned" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_a_finished_run_does_nothing_again(finished: Path) -> None:
    models = [*finished.glob("**/model.safetensors"), *finished.glob("**/*.tar")]
    assert len(models) >= 6
    before = {path: path.stat().st_mtime_ns for path in models}
    again = call("run", "tiny", "--output-dir", finished)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in models} == before


def test_two_processes_score_as_one(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("evaluation", "report.html"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    evaluate = ["-m", "adanat", "evaluate", "tiny", "--output-dir", str(folder)]
    done = subprocess.run(
        [*torchrun, *evaluate, "--evaluation.batch-size", "32"],  # of 80: two batches and one
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, expected = (
        json.loads((f / "evaluation" / "scores.json").read_text()) for f in (folder, finished)
    )
    for row, alone in zip(rows, expected, strict=True):
        assert row.pop("policy") == alone.pop("policy")
        speed = row.pop("images_per_second"), alone.pop("images_per_second")
        assert min(speed) > 0
        # Class features of the first step are shared within a batch, so small ones cost more.
        assert row.pop("network_passes") >= alone.pop("network_passes")
        assert row == pytest.approx(alone, rel=1e-4)


def killed_at(folder: Path, point: str) -> bool:
    """Run until `point` exists, then kill -9; False where the run ended before."""
    process = start(folder)
    try:
        while process.poll() is None:
            if (folder / point).exists():
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.01)
        return False
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(600)
def test_a_run_killed_in_every_stage_ends_as_one_never_killed(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kills = sum(killed_at(folder, point) for point in KILL_POINTS)
    assert kills == len(KILL_POINTS)
    done = call("run", "tiny", "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    assert measured(folder) == measured(finished)


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(tmp_path / "run")
    yield process
    process.kill()
    process.wait()


def test_ctrl_c_saves_and_says_so(interrupted: subprocess.Popen[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    point = folder / "tokenizer" / "checkpoints" / "step-000000004" / "complete.json"
    while interrupted.poll() is None and not point.exists():
        time.sleep(0.01)
    os.kill(interrupted.pid, signal.SIGINT)
    assert interrupted.wait(timeout=60) == 130


def test_other_settings_for_a_finished_stage_are_refused(finished: Path) -> None:
    refused = call(
        "train-tokenizer", "tiny", "--output-dir", finished, "--tokenizer.batch-size", "8"
    )
    assert refused.returncode == 1
    assert "tokenizer.batch_size: the folder has 16, this run has 8" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_unknown_recipe_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    refused = call("run", "imagenet-1", "--output-dir", tmp_path)
    assert refused.returncode == 2
    assert "imagenet-1" in refused.stderr + refused.stdout
    assert "fashion-mnist" in refused.stderr + refused.stdout


def test_stages_out_of_order_name_the_command_to_run(tmp_path: Path) -> None:
    refused = call("train-generator", "tiny", "--output-dir", tmp_path / "run")
    assert refused.returncode == 1
    assert "adanat tokenize tiny --output-dir" in refused.stderr


def test_label_out_of_range_is_refused(finished: Path) -> None:
    refused = call("sample", "tiny", "--output-dir", finished, "--labels", "3", "11")
    assert refused.returncode == 1
    assert "labels must be in [0, 9], got [11]" in refused.stderr


def test_samples_are_drawn(finished: Path) -> None:
    first = call("sample", "tiny", "--output-dir", finished, "--num-samples", "6")
    assert first.returncode == 0, first.stderr
    path = Path(first.stdout.strip().splitlines()[-1])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_empty_data_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused = call(
        "data",
        "fashion-mnist",
        "--output-dir",
        tmp_path / "run",
        "--data-dir",
        tmp_path / "empty",
    )
    assert refused.returncode == 1
    assert str(tmp_path / "empty") in refused.stderr
    assert "train-images-idx3-ubyte.gz" in refused.stderr


def test_weights_of_another_shape_are_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, folder], check=True)
    config = folder / "generator" / "model" / "config.json"
    config.write_text(config.read_text().replace('"embed_dim": 32', '"embed_dim": 64'))
    refused = call("sample", "tiny", "--output-dir", folder)
    assert refused.returncode == 1
    assert "size mismatch" in refused.stderr
    assert str(config.parent) in refused.stderr
    assert "Traceback" not in refused.stderr
