"""Judging a generator: equal images however they are shared, resumed work, cost, comparisons."""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
from adanat.checkpoints import atomic_write_json
from adanat.cli import main
from adanat.errors import DataError, StageError, StorageError
from adanat.evaluation import SourceEvaluation, evaluate_source, figures, models, names_path
from adanat.evaluation.chunks import Times, collect
from adanat.evaluation.comparison import Entry, Score, gain, read_entries
from adanat.evaluation.comparison_tables import Comparison
from adanat.evaluation.cost import measure_cost
from adanat.evaluation.extractors import FEATURES, Identity
from adanat.evaluation.figures import METRICS, key_of
from adanat.evaluation.generators import GeneratedSource, balanced, captioned, random
from adanat.evaluation.models import Models, load_policy
from adanat.evaluation.processes import Processes, join_processes
from adanat.evaluation.results import EvaluationResult
from adanat.run_folder import RunFolder
from adanat.text import HashedTextEncoder
from natgen import NAT, NATConfig, published
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from torch import distributed
from vqtok import Tokenizer, TokenizerConfig

CPU = torch.device("cpu")
STEPS = 3
SIZE = {"codebook_size": 16, "codebook_dim": 8}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Untrained models where a run keeps its trained ones."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig(image_size=8, base_channels=8, norm_groups=4, **SIZE))
        config = NATConfig(
            codebook_size=16, grid_size=(4, 4), embed_dim=16, depth=2, num_heads=2, num_classes=3
        )
        nat = NAT(config)
        network = PolicyNetwork(
            PolicyNetworkConfig(
                feature_dim=16,
                grid_size=(4, 4),
                num_outputs=4,
                hidden_dim=8,
                conv_channels=4,
                mlp_dims=(8, 8),
            )
        )
    policy = GaussianPolicy(network, decoding_spec(published(STEPS).values))
    tokenizer.save_pretrained(folder.tokenizer_model)
    nat.save_pretrained(folder.generator_model)
    policy.save_pretrained(folder.policy_model(0))
    best = {
        "num_steps": STEPS,
        "remask_temperature": 1.0,
        "sampling_temperature": 1.0,
        "guidance_scale": 2.0,
    }
    atomic_write_json(folder.schedule / "done.json", {"results": {"best": best}})
    more = {"results": {"points": [best | {"num_steps": 5}]}}
    atomic_write_json(folder.more_steps / "done.json", more)
    return folder.root


def source_of(
    root,
    *,
    policy="adaptive",
    seed=0,
    num_samples=20,
    batch_size=4,
    num_steps=None,
    precision="fp32",
):
    models = Models.load(root, policy=policy, num_steps=num_steps, device=CPU, precision=precision)
    return GeneratedSource(
        models,
        balanced(3, num_samples),
        num_samples=num_samples,
        seed=seed,
        batch_size=batch_size,
    )


def pixels(source, start, stop):
    return np.stack([item.image for item in source.items(start, stop)])


def test_an_image_depends_on_its_index_and_seed_alone(run_folder):
    source = source_of(run_folder)
    whole = pixels(source, 0, 20)
    np.testing.assert_array_equal(pixels(source, 8, 16), whole[8:16])
    assert [item.label for item in source.items(4, 9)] == [1, 2, 0, 1, 2]
    assert (pixels(source_of(run_folder, seed=1), 0, 20) != whole).any()


def test_keys_tell_generators_apart(run_folder):
    keys = {
        source_of(run_folder, **changes).key
        for changes in (
            {},
            {"seed": 1},
            {"num_samples": 21},
            {"policy": "static_tuned"},
            {"policy": "static", "num_steps": 4},
            {"precision": "bf16"},
        )
    }
    assert len(keys) == 6
    assert source_of(run_folder).key in keys


def test_bf16_is_that_of_the_transformer_and_the_picture_decoder_alone(run_folder):
    plain, cast = source_of(run_folder), source_of(run_folder, precision="bf16")
    tokenizer = cast.models.tokenizer
    bf16 = [*cast.models.nat.parameters(), *tokenizer.decoder.parameters()]
    fp32 = [*tokenizer.encoder.parameters(), *cast.models.policy.parameters()]
    assert {weight.dtype for weight in bf16} == {torch.bfloat16}
    assert {weight.dtype for weight in fp32} == {torch.float32}
    tokens = torch.arange(16).view(1, 16)
    near, exact = (255 * source.generator.decode(tokens).float() for source in (cast, plain))
    assert 0 < (near - exact).abs().max() < 5  # of the 255 levels of a picture
    assert (pixels(cast, 0, 8) != pixels(plain, 0, 8)).any()
    assert cast.description.startswith(f"20 samples of {run_folder}, policy adaptive, bf16, ")
    assert "bf16" not in plain.description


def test_the_results_tell_the_precision(run_folder, tmp_path, real_images):
    few = {"metrics": ("recall",), "num_samples": 8}
    for precision in ("fp32", "bf16"):
        result = evaluate_source(options(run_folder, tmp_path, precision=precision, **few))
        assert result.cost["precision"] == precision
        assert f"precision {precision}" in result.text()


def test_keys_tell_policies_of_equal_weights_but_another_prior_apart(run_folder):
    source, other = source_of(run_folder), source_of(run_folder)
    other.models.policy.spec.prior[0, 2] *= 1.01
    assert source.key != other.key


def test_keys_tell_versions_of_the_libraries_apart(run_folder, monkeypatch):
    key = source_of(run_folder).key
    for changed in ("torch", "natgen"):
        with monkeypatch.context() as patch:
            patch.setattr(models, "version", lambda name, c=changed: "9.9" if name == c else "1")
            found = source_of(run_folder).key
        assert found != key
        key = found


def test_the_balanced_plan_says_how_many_each_class_has():
    assert balanced(10, 50).description == "balanced labels (10 classes, 5 samples each)"
    assert "2 or 3 samples each" in balanced(4, 10).description
    assert torch.bincount(balanced(4, 10).of(torch.arange(10))).tolist() == [3, 3, 2, 2]
    assert "0 or 1 samples each" in balanced(4, 3).description


def test_random_labels_follow_seed_and_index():
    indices = torch.arange(3000)
    labels = random(3, seed=5).of(indices)
    torch.testing.assert_close(random(3, seed=5).of(indices[100:200]), labels[100:200])
    assert (random(3, seed=6).of(indices) != labels).any()
    assert torch.bincount(labels, minlength=3).min() > 900  # 1000 expected, sigma about 26


def test_captions_condition_and_travel_with_the_samples(run_folder):
    encoder = HashedTextEncoder(2, CPU)
    plan = captioned(["a shoe", "a bag"], encoder)
    torch.testing.assert_close(plan.of(torch.tensor([1, 0])), encoder(["a bag", "a shoe"])[0])
    models = Models.load(run_folder, policy="adaptive", num_steps=None, device=CPU)
    with pytest.raises(DataError, match="3 samples asked for, but only 2 captions"):
        GeneratedSource(models, plan, num_samples=3, seed=0, batch_size=2)


def test_policies_by_name(run_folder):
    folder = RunFolder(run_folder)
    assert load_policy(folder, "static", 7, CPU).num_steps == 7
    assert load_policy(folder, "static_tuned", None, CPU).num_steps == STEPS
    assert load_policy(folder, "static_tuned_T5", None, CPU).num_steps == 5
    assert load_policy(folder, "adaptive", None, CPU).num_steps == STEPS
    with pytest.raises(StageError, match="no static_tuned_T9; it has static_tuned_T5"):
        load_policy(folder, "static_tuned_T9", None, CPU)
    with pytest.raises(StageError, match=r"model\.safetensors"):
        load_policy(folder, "adaptive_1", None, CPU)
    with pytest.raises(ValueError, match="unknown policy 'best'"):
        load_policy(folder, "best", None, CPU)
    with pytest.raises(ValueError, match="`static` needs a number of steps"):
        load_policy(folder, "static", None, CPU)


class MeanColour:
    """A tiny extractor that can be made to stop."""

    def __init__(self, images_left=10**6):
        self.identity = Identity(name="mean", network="mean colour", resize="none")
        self.left = images_left

    def __call__(self, items):
        self.left -= len(items)
        if self.left < 0:
            raise KeyboardInterrupt
        return {FEATURES: np.stack([i.image.mean((0, 1)) for i in items]).astype(np.float32)}


def features_of(source, cache, extractor, processes=None):
    found = collect(
        source,
        [extractor],
        cache=cache,
        processes=processes or Processes(),
        batch_size=4,
        chunk_size=8,
    )
    return found.stores["mean"].read(FEATURES)


def test_an_interrupted_collection_goes_on_where_it_stopped(run_folder, tmp_path):
    source = source_of(run_folder)
    expected = features_of(source, tmp_path / "whole", MeanColour())
    with pytest.raises(KeyboardInterrupt):
        features_of(source, tmp_path / "parts", MeanColour(images_left=13))
    rest = MeanColour()
    resumed = features_of(source, tmp_path / "parts", rest)
    np.testing.assert_array_equal(resumed, expected)
    assert 10**6 - rest.left == 20 - 8  # one chunk of eight was whole
    again = MeanColour(images_left=0)
    np.testing.assert_array_equal(features_of(source, tmp_path / "parts", again), expected)
    chunk = next((tmp_path / "parts").rglob("chunk-000001.npz"))
    chunk.write_bytes(chunk.read_bytes()[:100])  # by a disk, as files are moved into place whole
    with pytest.raises(StorageError, match=r"chunk-000001\.npz .*: delete it and run the same"):
        features_of(source, tmp_path / "parts", again)


def options(run_folder, tmp_path, **changes):
    defaults = {
        "source": str(run_folder),
        "reference": str(tmp_path / "real.npz"),
        "metrics": ("lite2", "lite2-kid", "precision", "recall"),
        "output": tmp_path / "out.json",
        "cache_dir": tmp_path / "cache",
        "feature_size": 32,
        "num_samples": 24,
        "batch_size": 8,
    }
    return SourceEvaluation(**(defaults | changes))


@pytest.fixture
def real_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", arr_0=images)
    return images


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


def test_time_is_told_by_its_parts(run_folder, tmp_path, real_images):
    began = time.perf_counter()
    few = {"metrics": ("recall",)}
    result = evaluate_source(options(run_folder, tmp_path, save_npz=tmp_path / "s.npz", **few))
    wall = time.perf_counter() - began
    parts = result.seconds
    assert set(parts) == {
        *("transformer", "policy", "decoder", "drawing", "reading", "features", "saving"),
        *("scores", "rest"),
    }
    assert min(parts.values()) > 0
    # Nothing is told twice or left out; what follows is the writing of the results.
    assert 0.9 * wall < sum(parts.values()) <= wall
    networks = sum(parts[name] for name in ("transformer", "policy", "decoder", "features"))
    assert result.network_share == pytest.approx(networks / sum(parts.values()))
    assert 0.05 < result.peak_memory_gb < 100
    again = evaluate_source(options(run_folder, tmp_path, **few))
    assert again.seconds["features"] == parts["features"]  # as kept with the features
    assert again.seconds["rest"] > 0


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


def test_operations_are_those_counted_by_hand(run_folder):
    # Unguided (the scale is in the dead zone or 0), one class: every count is exact.
    source = source_of(run_folder, policy="static", num_steps=STEPS, num_samples=4, batch_size=4)
    config, tokens = source.models.nat.config, 16
    width, length = config.embed_dim, tokens + 1  # one condition token
    hidden = int(config.mlp_ratio * width)
    block = 2 * length * width * (3 * width + width + 2 * hidden)  # qkv, projection, MLP
    block += 4 * length * length * width  # scores and weighted sum
    skips = config.depth // 2 * 2 * length * 2 * width * width
    head = 2 * tokens * (width * width + width * config.codebook_size)
    row = (config.depth + 1) * block + skips + head
    found = measure_cost(source, Times(images=4, reading=2.0, features=9.0))
    decoder = flops_of(source.models.tokenizer.decode, torch.zeros(4, 4, 4, dtype=torch.int64)) / 4
    assert found.gflops * 1e9 == pytest.approx(found.network_passes * row + decoder)
    assert found.policy_flops_share == found.policy_time_share == 0
    assert found.milliseconds == 500
    assert found.images_per_second == 2


def flops_of(call, *arguments):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*arguments)
    return counter.get_total_flops()


def test_the_policy_network_s_share_is_its_own_operations(run_folder):
    source = source_of(run_folder, num_samples=4)
    found = measure_cost(source, Times(images=4, reading=2.0))
    policy = source.models.policy
    own = flops_of(lambda: policy(torch.zeros(4, 16, 16), 0)) * STEPS / 4
    assert found.policy_flops_share == pytest.approx(own / (found.gflops * 1e9))
    shares = (found.transformer_time_share, found.policy_time_share, found.decoder_time_share)
    assert min(shares) > 0
    assert sum(shares) < 1


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
