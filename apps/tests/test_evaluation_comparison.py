"""Several evaluations side by side."""

import numpy as np
import pytest
from adanat.checkpoints import atomic_write_json
from adanat.errors import DataError
from adanat.evaluation import evaluate_source
from adanat.evaluation.comparison import Entry, Score, gain, read_entries
from adanat.evaluation.comparison_tables import Comparison
from adanat.evaluation.figures import METRICS, key_of
from adanat.run_folder import RunFolder
from untrained_run import STEPS, options


def test_comparisons_are_paired_and_tabulated(run_folder, tmp_path, real_images):
    few = {"metrics": ("precision", "recall")}
    for policy, name in (("static_tuned", "tuned"), ("static_tuned_T5", "tuned_T5")):
        changes = {"policy": policy, "seeds": (0, 1), "output": tmp_path / f"{name}.json"} | few
        evaluate_source(options(run_folder, tmp_path, **changes))
    entries = read_entries([tmp_path / "tuned.json", tmp_path / "tuned_T5.json"])
    assert [entry.family for entry in entries] == ["tuned", "tuned"]
    paired = gain(*entries, "lite2_precision")
    first, second = (entry.scores["lite2_precision"].by_seed for entry in entries)
    assert paired.mean == pytest.approx(np.mean([second[s] - first[s] for s in ("0", "1")]))
    comparison = Comparison(entries, metric="lite2_precision", baseline="tuned")
    comparison.write(tmp_path / "cmp", cost="gflops")
    for ending in ("md", "tex", "csv", "json", "png", "svg"):
        assert (tmp_path / "cmp" / f"compare.{ending}").stat().st_size > 100
    lines = (tmp_path / "cmp" / "compare.csv").read_text().splitlines()
    assert len(lines) == 3
    assert f"tuned,{STEPS},{entries[0].scores['lite2_precision'].value}" in lines[1]
    assert "gain in lite2\\_precision over tuned" in comparison.latex()
    with pytest.raises(DataError, match="no entry 'other'"):
        Comparison(entries, metric="lite2_precision", baseline="other")
    evaluate_source(
        options(run_folder, tmp_path, output=tmp_path / "o.json", num_samples=25, **few)
    )
    with pytest.raises(DataError, match="lite2_precision cannot be compared"):
        read_entries([tmp_path / "tuned.json", tmp_path / "o.json"])
    np.savez(tmp_path / "real.npz", arr_0=255 - real_images)  # as many, but others
    evaluate_source(options(run_folder, tmp_path, output=tmp_path / "o.json", seeds=(0, 1), **few))
    with pytest.raises(DataError, match="lite2_precision cannot be compared"):
        read_entries([tmp_path / "tuned.json", tmp_path / "o.json"])


def evaluated_run(root, *, source="digits"):
    """The files that a comparison reads of a run: two seeds of one policy."""
    folder = RunFolder(root)
    atomic_write_json(folder.data / "config.json", {"config": {"source": source}})
    atomic_write_json(folder.data / "done.json", {"results": {}})
    row = {"policy": "adaptive", "num_steps": 4, "network_passes": 7.0, "classifier_fd": 1.0}
    results = {
        "protocol": {
            "num_samples": 300,
            "label_plan": "balanced labels",
            "reference": "300 test images",
            "features": "EfficientNet-Lite2 pooled",
        },
        "scores": [row | {"seed": seed, "lite2_fd": 10.0 + seed} for seed in (0, 1)],
    }
    atomic_write_json(folder.evaluation / "done.json", {"results": results})
    return root


def test_runs_are_compared_on_the_same_data_and_never_by_their_own_classifiers(tmp_path):
    first, second = evaluated_run(tmp_path / "a"), evaluated_run(tmp_path / "b")
    entries = read_entries([first, second])
    assert [entry.name for entry in entries] == ["a/adaptive", "b/adaptive"]
    assert entries[0].scores["lite2_fd"].by_seed == {"0": 10.0, "1": 11.0}
    assert entries[0].cost == {"network_passes": 7.0}
    assert "300 samples, balanced labels, against 300 test images of digits" in (
        entries[0].scores["lite2_fd"].basis
    )
    assert entries[0].scores.keys() == {"lite2_fd", "classifier_fd of a"}
    assert entries[1].scores.keys() == {"lite2_fd", "classifier_fd of b"}
    other = evaluated_run(tmp_path / "c", source="fashion-mnist")
    with pytest.raises(DataError, match="lite2_fd cannot be compared"):
        read_entries([first, other])


@pytest.mark.parametrize(("metric", "sign"), [("lite2_fd", 1), ("lite2_recall", -1)])
def test_a_gain_is_an_improvement_whichever_way_is_better(metric, sign):
    def entry(name, values):
        by_seed = {str(seed): value for seed, value in enumerate(values)}
        score = Score(value=np.mean(values), by_seed=by_seed, low=None, high=None, basis="")
        return Entry(name=name, family=name, num_steps=4, scores={metric: score}, cost={})

    found = gain(entry("before", [0.5, 0.7]), entry("after", [0.4, 0.5]), metric)
    assert found.mean == pytest.approx(sign * 0.15)


def test_gains_know_the_better_direction_of_every_figure():
    for name, metric in METRICS.items():
        one, two = (
            Score(value=v, by_seed={"0": v, "1": v}, low=None, high=None, basis="") for v in (1, 2)
        )
        first, second = (
            Entry(name="", family="", num_steps=4, scores={key_of(name, "lite2"): s}, cost={})
            for s in (one, two)
        )
        found = gain(first, second, key_of(name, "lite2"))
        assert (found.mean > 0) == (metric.better == "higher"), name
