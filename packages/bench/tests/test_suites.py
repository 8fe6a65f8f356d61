"""The suites run, and their results say where they come from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from natbench import PRESETS, compare
from natbench.cli import main


@pytest.mark.parametrize("name", PRESETS)
def test_preset_carries_its_name(name: str) -> None:
    assert PRESETS[name]().name == name


def test_preset_whose_grids_differ_is_refused() -> None:
    tiny = PRESETS["tiny"]()
    with pytest.raises(ValueError, match=r"grid is \(2, 2\), the tokenizer's \(4, 4\)"):
        dataclasses.replace(tiny, nat=dataclasses.replace(tiny.nat, grid_size=(2, 2)))


def test_preset_whose_codebooks_differ_is_refused() -> None:
    tiny = PRESETS["tiny"]()
    with pytest.raises(ValueError, match="has 7 codes, the tokenizer 32"):
        dataclasses.replace(tiny, nat=dataclasses.replace(tiny.nat, codebook_size=7))


def run_suites(output: Path, *more: str) -> dict[str, Any]:
    """The result file of the tiny preset, made in a process of its own."""
    quick = ["--benchmark-min-rounds=1", "--benchmark-max-time=0.01", "--benchmark-warmup=off"]
    settings = ["--preset=tiny", "--device=cpu", "--threads=1", "--clock=cpu"]
    arguments = ["run", *settings, f"--output={output}", "-q", *quick, *more]
    script = f"import sys; from natbench.cli import main; sys.exit(main({arguments!r}))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=output.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    results: dict[str, Any] = json.loads(output.read_text())
    return results


@pytest.mark.slow
def test_trainers_choose_what_runs_in_bf16(tmp_path: Path) -> None:
    results = run_suites(
        tmp_path / "results.json", "--precision=bf16", "-k=features or discriminator or rollout"
    )
    assert results["machine_info"]["natbench"]["precision"] == "bf16"
    assert len(results["benchmarks"]) == 3


@pytest.mark.slow
def test_suites_write_rates_hardware_and_versions(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    results = run_suites(output)

    about = results["machine_info"]["natbench"]
    assert about["preset"] == "tiny"
    assert about["device"] == "cpu"
    assert (about["clock"], about["threads"]) == ("cpu", 1)
    assert {"natgen", "torch"} <= set(about["versions"])

    notes = {record["name"]: record["extra_info"] for record in results["benchmarks"]}
    assert len(notes) == 21
    for name, note in notes.items():
        assert next(rate for key, rate in note.items() if key.endswith("_per_second")) > 0
        assert min(note["calibration"].values()) > 0
        assert note["work"]["calls"] > 0
        assert note["peak_bytes"] > 0
        assert (note["share_of_matrix_ceiling"] > 0) == (note["work"]["flops"] > 0)
        assert (note["work"]["flops"] > 0) == (name not in ("bench_draw", "bench_token_store"))
    assert notes["bench_generation_plain[T4]"]["passes_per_image"] == 9
    guided, free = (
        notes[f"bench_generation[T4-S16-{kind}]"]["passes_per_image"] for kind in ("guided", "free")
    )
    assert (guided, free) == (1.25 + 6, 4)
    assert notes["bench_generation_warm[T4]"]["passes_per_image"] == 6
    assert notes["bench_generation_continuous[T4]"]["passes_per_image"] == 1.25 + 2
    flops = {name: note["work"]["flops"] for name, note in notes.items()}
    static = flops["bench_generation_static[T4]"]
    assert static == flops["bench_generation_warm[T4]"]
    assert flops["bench_pictures[T4]"] == 4 * (static + flops["bench_tokenizer_decode"])
    assert len(output.read_bytes()) < 100_000

    comparison = compare(output, output)
    assert comparison.passed
    assert [change.ratio for change in comparison.changes] == [1.0] * 21


def test_processor_time_is_refused_where_it_misleads() -> None:
    with pytest.raises(SystemExit, match="sees no GPU, got cuda and"):
        main(["run", "--device=cuda", "--clock=cpu"])


def test_a_device_without_ceilings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--device=mps"])
    assert "mps is not measured: give auto, cpu, cuda or cuda:N" in capsys.readouterr().err
