"""The study of adaptive length: its counts, and end to end on the tiny recipe."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adanat.cli import main
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.studies import study_length
from adanat.studies.length import steps_taken


def test_an_image_is_complete_when_less_than_a_token_would_be_masked() -> None:
    parameters = np.ones((4, 3, 4), dtype=np.float32)
    parameters[:, :, 0] = [[0.9, 0.5, 0.0], [0.9, 0.0, 0.4], [0.2, 0.9, 0.0], [0.9, 0.4, 0.4]]
    assert steps_taken(parameters, num_tokens=4).tolist() == [3, 2, 1, 3]


@pytest.mark.parametrize(
    ("change", "prices", "message"),
    [
        ({}, (0.1,), r"cannot end early with reveal_below 0\.0 .* give --reveal-below"),
        ({"reveal_below": 0.3}, (), r"prices must be one or more numbers .* got \[\]"),
        ({"reveal_below": 0.3}, (-0.1,), r"got \[-0\.1\]"),
    ],
)
def test_impossible_studies_are_refused(
    tmp_path: Path, change: dict, prices: tuple[float, ...], message: str
) -> None:
    recipe = replace(get_recipe("tiny"), **change)
    with pytest.raises(ValueError, match=message):
        study_length(Run(recipe, tmp_path), prices=prices)


@pytest.mark.slow
def test_the_study_end_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = ("--reveal-below", "0.35", "--policy.num-updates", "2", "--evaluation.num-samples")
    arguments = ["study-length", "tiny", "--output-dir", str(folder), *short, "40"]
    main([*arguments, "--prices", "0.5"])
    study = folder / "studies" / "adaptive-length"
    done = study / "below-0.35-price-0.5" / "policy" / "seed-0" / "done.json"
    assert json.loads(done.read_text())["results"]["best_step"] == 3  # the last cycle
    marks = {path: path.stat().st_mtime_ns for path in folder.rglob("done.json")}

    main([*arguments, "--prices", "0", "0.5"])  # goes on: one more price
    assert marks == {path: path.stat().st_mtime_ns for path in marks}
    # The policy without a price is the run's own.
    assert (folder / "policy" / "seed-0" / "done.json").is_file()
    found = json.loads((study / "figures.json").read_text())
    assert set(found["learned"]) == {"0.0", "0.5"}
    assert set(found["schedules"]) == {"2", "3", "4"}
    assert found["schedules"]["3"]["steps"]["mean"] == 3
    assert found["schedules"]["4"]["gain"]["mean"] == 0
    for price, point in found["learned"].items():
        shares = found["shares"][price]
        assert sum(shares) == pytest.approx(1)
        assert len(found["by_class"][price]) == 10
        expected = sum(n * share for n, share in enumerate(shares, start=1))
        assert point["steps"]["mean"] == pytest.approx(expected, abs=0.3)  # other samples
        assert point["passes"]["mean"] <= found["schedules"]["4"]["passes"]["mean"] + 1
    page = (study / "adaptive-length.md").read_text()
    assert (study / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in page
    command = f"adanat study-length tiny --output-dir {folder}"
    assert command in page
    assert "--reveal-below 0.35" in page
    assert "--prices 0 0.5" in page
