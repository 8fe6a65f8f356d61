"""Judging a generator by one command: figures, processes, options."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from adanat.cli import main
from adanat.errors import DataError
from adanat.evaluation import evaluate_source, figures, names_path
from adanat.evaluation.processes import Processes, join_processes
from adanat.evaluation.results import EvaluationResult
from torch import distributed
from untrained_run import options, pixels, source_of


def test_the_results_tell_the_precision(run_folder, tmp_path, real_images):
    few = {"metrics": ("recall",), "num_samples": 8}
    for precision in ("fp32", "bf16"):
        result = evaluate_source(options(run_folder, tmp_path, precision=precision, **few))
        assert result.cost["precision"] == precision
        assert f"precision {precision}" in result.text()


def test_every_figure_carries_what_it_takes_to_judge_it(run_folder, tmp_path, real_images):
    result = evaluate_source(
        options(
            run_folder, tmp_path, seeds=(0, 1), pictures=tmp_path / "p", save_npz=tmp_path / "s.npz"
        )
    )
    assert result == EvaluationResult.load(tmp_path / "out.json")
    for figure in result.figures:
        assert figure.num_samples == 24
        assert figure.num_reference == 30
        assert set(figure.by_seed) == {"0", "1"}
        assert figure.interval == "95 % over 2 generation seeds, Student's t"
        assert figure.low <= figure.value <= figure.high
        assert figure.extractor["resize"] == "bilinear, antialias, 32 px"
    assert result.label_plan == "balanced labels (3 classes, 8 samples each)"
    assert result.label_plan in result.text()
    for name in ("samples.png", "neighbours.png", "classes.png", "neighbours.json"):
        assert (tmp_path / "p" / name).is_file()
    with np.load(tmp_path / "s-seed-1.npz") as archive:
        source = source_of(run_folder, seed=1, num_samples=24, batch_size=8)
        np.testing.assert_array_equal(archive["arr_0"], pixels(source, 0, 24))


def test_the_kernel_distance_is_the_same_alone_and_beside_precision(
    run_folder, tmp_path, real_images, monkeypatch
):
    few = {"num_samples": 16, "seeds": (0, 1)}  # smaller than the reference: subsets differ
    alone = evaluate_source(options(run_folder, tmp_path, metrics=("lite2-kid",), **few))
    monkeypatch.setattr(figures, "kernel_distance", None)  # shared products serve
    beside = evaluate_source(
        options(run_folder, tmp_path, metrics=("precision", "lite2-kid"), **few)
    )
    for seed, value in alone.figures[0].by_seed.items():
        # Near 0 what is left of kernels around 1 is float32's rounding.
        assert beside.figures[1].by_seed[seed] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_one_seed_has_intervals_only_where_resampling_is_unbiased(
    run_folder, tmp_path, real_images
):
    result = evaluate_source(options(run_folder, tmp_path))
    intervals = {figure.key: figure.interval for figure in result.figures}
    assert intervals.pop("lite2_fd") is None
    assert set(intervals.values()) == {"95 % over resampled images, bootstrap"}


def test_statistics_beside_images_serve_the_distance_alone(run_folder, tmp_path, real_images):
    """As in ADM's reference batches: statistics of all images, and some of the images."""
    generator = np.random.default_rng(1)
    moments = {"mu": generator.normal(size=1280), "sigma": np.eye(1280)}
    np.savez(tmp_path / "both.npz", arr_0=real_images, **moments)
    np.savez(tmp_path / "moments.npz", **moments)
    shared = {"metrics": ("lite2", "precision"), "statistics_protocol": "lite2"}
    both = evaluate_source(
        options(run_folder, tmp_path, reference=str(tmp_path / "both.npz"), **shared)
    )
    assert [figure.num_reference for figure in both.figures] == [0, 30]
    only = {"reference": str(tmp_path / "moments.npz"), "metrics": ("lite2",)}
    alone = evaluate_source(options(run_folder, tmp_path, **shared | only))
    assert alone.figures == both.figures[:1]
    assert "against given statistics" in both.text()


def test_what_the_reference_cannot_give_is_said_before_any_image_is_drawn(run_folder, tmp_path):
    np.savez(tmp_path / "moments.npz", mu=np.zeros(4), sigma=np.eye(4))
    wanted = options(run_folder, tmp_path, reference=str(tmp_path / "moments.npz"))
    with pytest.raises(DataError, match="KID, precision, recall, density and coverage need"):
        evaluate_source(wanted)
    assert not list(wanted.cache.rglob("chunk-*"))


def test_processes_wait_for_one_another_longer_than_half_an_hour(monkeypatch):
    """The library's default, which one with all the missing chunks may need longer than."""
    seen = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda _, **given: seen.update(given))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with join_processes() as found:
        assert found == Processes(1, 2)
    assert seen["timeout"] > timedelta(days=1)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(run_folder, tmp_path, real_images):
    def run(launcher, name):
        arguments = [
            *("evaluate", str(run_folder), "--reference", str(tmp_path / "real.npz")),
            *("--metrics", "precision", "lite2-kid"),
            *("--num-samples", "600", "--batch-size", "100", "--feature-size", "32"),
            *("--cache-dir", str(tmp_path / name), "--output", str(tmp_path / f"{name}.json")),
        ]
        script = tmp_path / "script.py"
        script.write_text("from adanat.cli import main\nmain()\n")
        command = [sys.executable, *launcher, str(script), *arguments]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads((tmp_path / f"{name}.json").read_text())["figures"]

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert run(torchrun, "two") == run([], "one")


def test_recipes_and_paths_share_one_command(run_folder, tmp_path, real_images, capsys):
    assert not names_path(["tiny", "--output-dir", "x"])
    assert not names_path(["--help"])
    assert not names_path([])
    assert names_path(["./tiny"])
    main(
        [
            *("evaluate", str(tmp_path / "real.npz"), "--reference", str(tmp_path / "real.npz")),
            *("--metrics", "lite2", "recall", "--output", str(tmp_path / "r.json")),
            *("--cache-dir", str(tmp_path / "cache"), "--feature-size", "32"),
        ]
    )
    assert "lite2_fd" in capsys.readouterr().out
    found = EvaluationResult.load(tmp_path / "r.json")
    assert [f.value for f in found.figures] == pytest.approx([0, 1], abs=1e-3)
    assert found.cost is None
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "nowhere"), "--output", str(tmp_path / "r.json")])
    assert "name them by --reference" in capsys.readouterr().err


def test_options_that_contradict_one_another_are_refused(run_folder, tmp_path, real_images):
    with pytest.raises(ValueError, match="lite2 compare with real images"):
        options(run_folder, tmp_path, metrics=("lite2",), reference=None)
    with pytest.raises(ValueError, match="num_samples is 0"):
        options(run_folder, tmp_path, num_samples=0)
    with pytest.raises(ValueError, match=r"seeds are \(0, 1, 0\); each counts once"):
        options(run_folder, tmp_path, seeds=(0, 1, 0))
    with pytest.raises(ValueError, match="--clip-dir"):
        options(run_folder, tmp_path, metrics=("clip-score",))
    with pytest.raises(ValueError, match="seeds are for folders of runs"):
        evaluate_source(
            options(run_folder, tmp_path, source=str(tmp_path / "real.npz"), seeds=(0, 1))
        )
    with pytest.raises(DataError, match="knows 3 classes"):
        evaluate_source(options(run_folder, tmp_path, labels="captions"))
