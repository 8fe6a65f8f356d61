"""The whole loop on captions: every stage, samples after prompts, and the pipeline of the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from adanat import NATPipeline
from adanat.data import find_font
from adanat.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from adanat.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        find_font()
    except DataError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("captions") / "run"
    done = call("run", "tiny-text", "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_evaluation_scores_captions(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    for policy in ("static", "static_tuned", "adaptive", "adaptive_static"):
        assert 0 <= metrics[policy]["caption_score"] <= 1
    protocol = metrics["protocol"]
    assert protocol["label_plan"] == "captions of the test images"
    assert 0.5 < protocol["caption_score_of_validation_pairs"] <= 1
    assert " ground" in (finished / "report.html").read_text()


def test_captions_are_checked_beside_real_images(finished: Path) -> None:
    done = call(
        "check-captions", "tiny-text", "--output-dir", finished, "--num-samples", "12",
        "--steps", "2", "--guidance-scales", "0", "2.5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((finished / "caption-check.json").read_text())
    assert [row["images"] for row in rows] == [
        "real",
        "reconstructions",
        "guidance 0",
        "guidance 2.5",
    ]
    for row in rows:
        assert row["images"] in done.stdout
        assert row["gain"]["mean"] == pytest.approx(row["own"] - row["others"])
        assert row["gain"]["low"] < row["gain"]["mean"] < row["gain"]["high"]
        assert 0 <= row["win_share"] <= 1
        assert set(row["near_misses"]) == {"ground", "figures", "relation"}
    assert (finished / "caption-check.png").stat().st_size > 10_000


def test_captions_are_encoded_once_a_split(finished: Path) -> None:
    described = [json.loads(path.read_text()) for path in finished.glob("text/*/captions.json")]
    assert sorted(entry["captions"] for entry in described) == [81, 81, 121]  # with the empty one
    assert {entry["encoder"] for entry in described} == {"hashed, 12 tokens"}


def test_samples_follow_prompts(finished: Path) -> None:
    drawn = call(
        "sample", "tiny-text", "--output-dir", finished, "--num-samples", "4",
        "--prompts", "an owl on a red ground", "two fish on a black ground",
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert Path(drawn.stdout.strip().splitlines()[-1]).read_bytes().startswith(b"\x89PNG")


def test_labels_are_refused(finished: Path) -> None:
    refused = call("sample", "tiny-text", "--output-dir", finished, "--labels", "3")
    assert refused.returncode == 1
    assert "tiny-text is conditioned on text: give prompts, not labels" in refused.stderr


def test_the_run_becomes_a_pipeline(finished: Path, tmp_path: Path) -> None:
    done = call("export-pipeline", "tiny-text", "--output-dir", finished, "--to", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    pipeline = NATPipeline.from_pretrained(tmp_path / "p")
    (picture,) = pipeline(prompt="an owl on a red ground", num_steps=4)
    assert picture.size == (32, 32)


def test_other_captions_settings_are_refused(finished: Path) -> None:
    refused = call(
        "train-generator", "tiny-text", "--output-dir", finished, "--text.num-tokens", "9"
    )
    assert refused.returncode == 1
    assert "text.num_tokens: the folder has 12, this run has 9" in refused.stderr
