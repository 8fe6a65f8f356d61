"""The benchmarks' flows from stand-ins in published formats to the report, with tiny networks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adanat.commands.benchmarks import train
from adanat.commands.flow import run_stages
from adanat.commands.options import clear
from adanat.doctor import Finding, examine, report
from adanat.engine import AccelerateEngine
from adanat.errors import DataError, StageError
from adanat.plan import amounts, plan
from adanat.prepare.reading import SplitCaptions
from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks import BENCHMARKS, smoke
from adanat.recipes.benchmarks.smoke import prepare_stand_in
from adanat.run import Run
from adanat.stage_timing import TimedStage, time_stages
from adanat.stages import prepare_data, train_generator, train_tokenizer
from natgen import NAT, NATConfig
from vqtok import TokenizerConfig

SIZE = 64


def tiny(name: str) -> Recipe:
    """The trial run with small networks on small pictures: the same stages, seconds each."""
    recipe = smoke(BENCHMARKS[name](), depth=2)
    model = TokenizerConfig(
        image_size=SIZE,
        base_channels=8,
        channel_multipliers=(1, 1, 2, 2, 4),
        downsample_factors=(2, 2, 2, 2),
        norm_groups=2,
        codebook_size=32,
        codebook_dim=8,
    )
    training = replace(recipe.tokenizer.training, adversarial=None)
    return replace(
        recipe,
        data=replace(recipe.data, image_size=SIZE),
        tokenizer=replace(recipe.tokenizer, model=model, training=training, perceptual_size=32),
        generator=replace(recipe.generator, embed_dim=32, num_heads=2),
        policy=replace(recipe.policy, hidden_dim=32, conv_channels=8, mlp_dims=(32, 16)),
        reward=replace(recipe.reward, input_size=32),
        evaluation=replace(recipe.evaluation, feature_size=32),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_flow_ends_with_metrics_and_report(name: str, tmp_path: Path) -> None:
    recipe = tiny(name)
    data = prepare_stand_in(recipe, tmp_path / "stand-in")
    run = Run(recipe, tmp_path / "run", data)
    run_stages(run, "report")
    metrics = json.loads(run.folder.metrics.read_text())
    for policy in ("static", "static_tuned", "adaptive", "adaptive_static"):
        assert metrics[policy]["lite2_fd"] > 0
    assert metrics["num_samples"] == 4
    assert run.folder.report.stat().st_size > 10_000
    for folder in (run.folder.generator, run.folder.policy(0)):
        assert list(folder.glob("pictures/samples-*.png"))
    assert run.nat().config.patch_size == (2 if name == "in512" else 1)


def test_captions_on_the_fly_are_those_that_would_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("cc3m")
    run = Run(recipe, tmp_path / "run", prepare_stand_in(recipe, tmp_path / "stand-in"))
    prepare_data(run)
    stored, row = run.conditions("fit"), torch.tensor([1, 3, 4])
    run = replace(run, recipe=replace(recipe, text=replace(recipe.text, stored=False)))
    monkeypatch.delattr(SplitCaptions, "__iter__")  # which would read millions of captions
    on_the_fly = run.conditions("fit")
    assert len(run.images("fit").labels) == 4  # sample 4 begins anew
    assert on_the_fly.sizes == stored.sizes
    torch.testing.assert_close(
        on_the_fly.of_samples(row), stored.of_samples(row), rtol=1e-3, atol=1e-3
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a tokenizer."""
    folder = tmp_path_factory.mktemp("flow")
    recipe = tiny("in256")
    run = Run(recipe, folder / "run", prepare_stand_in(recipe, folder / "stand-in"))
    prepare_data(run)
    train_tokenizer(run)
    return run


def test_a_tokenizer_is_taken_over_at_another_size(trained: Run, tmp_path: Path) -> None:
    weights = trained.folder.tokenizer_model
    recipe = replace(trained.recipe, tokenizer=replace(trained.recipe.tokenizer, weights=weights))
    model = replace(recipe.tokenizer.model, image_size=2 * SIZE)
    recipe = replace(
        recipe,
        data=replace(recipe.data, image_size=2 * SIZE),
        tokenizer=replace(recipe.tokenizer, model=model),
    )
    run = Run(recipe, tmp_path / "run", trained.data_dir)
    prepare_data(run)
    train_tokenizer(run)
    assert run.tokenizer().grid_size == (8, 8)
    assert trained.tokenizer().grid_size == (4, 4)
    for found, given in zip(
        run.tokenizer().parameters(), trained.tokenizer().parameters(), strict=True
    ):
        assert found.equal(given)


def test_a_transformer_that_does_not_fit_is_refused(trained: Run, tmp_path: Path) -> None:
    other = tmp_path / "nat"
    NAT(
        NATConfig(
            codebook_size=32, grid_size=(2, 2), embed_dim=32, depth=2, num_heads=2, num_classes=7
        )
    ).save_pretrained(other)
    recipe = replace(trained.recipe, generator=replace(trained.recipe.generator, weights=other))
    run = Run(recipe, trained.output_dir, trained.data_dir)
    with pytest.raises(
        StageError, match=r"grid_size is \(2, 2\), the run has \(4, 4\); num_classes is 7.*has 2"
    ):
        train_generator(run)


def test_data_must_be_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagenet must be prepared once.*--data-dir DIR"):
        prepare_data(Run(tiny("in256"), tmp_path))


def test_other_data_are_refused(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds imagenet, not coco"):
        prepare_data(Run(tiny("coco"), tmp_path, trained.data_dir))


def test_only_the_main_process_deletes_for_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tiny("in256"), tmp_path)
    with run.stages.data as stage:
        stage.finish({})
    monkeypatch.setattr(AccelerateEngine, "process_index", 1)
    clear(run, [stage])
    assert stage.is_done()
    monkeypatch.setattr(AccelerateEngine, "process_index", 0)
    clear(run, [stage])
    assert not stage.is_done()


def test_a_dry_run_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(BENCHMARKS["cc3m"](), output_dir=tmp_path / "run", dry_run=True)
    assert "cc3m: cc3m, 256 px, T = 8" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_depth_without_smoke_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--depth belongs to --smoke"):
        train(BENCHMARKS["in256"](), depth=2)


def test_the_doctor_looks_at_machine_data_and_stages(trained: Run, tmp_path: Path) -> None:
    findings = {
        finding.name: finding
        for finding in examine(
            trained.recipe,
            tmp_path,
            trained.data_dir,
            AccelerateEngine(),
            batch_size=1,
            episodes=2,
        )
    }
    assert list(findings) == [
        "device",
        "attention",
        "shared memory",
        "processes",
        "batches",
        "disk",
        "data",
        "weights",
        "train-tokenizer",
        "tokenize",
        "train-generator",
        "train-policy",
        "search, evaluate",
        "in all",
    ]
    assert findings["data"].ok
    assert "fit 4, validation 4, test 4, of 1,331,167 published" in findings["data"].text
    assert "s a step of 1, " in findings["tokenize"].text
    assert "s a step of 2, " in findings["train-policy"].text


def test_the_doctor_adds_up_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timings(*_: object, **__: object) -> list[TimedStage]:
        return [TimedStage(name, 2.0, 8, 28_800, 1e12, 3 * 2**30) for name in ("one", "two")]

    monkeypatch.setattr("adanat.doctor.time_stages", timings)
    monkeypatch.setattr(AccelerateEngine, "num_processes", 4)
    monkeypatch.setattr("adanat.doctor._processes", lambda engine: Finding("processes", True, ""))
    *_, first, _, total = examine(tiny("in256"), tmp_path, None, AccelerateEngine(), batch_size=8)
    assert first.text == "2.000 s a step of 8, 4.0/s, 4 TFLOP/s, 3.0 GiB at most; 2.0 h"
    assert total.text == "4.0 h on one such device, 1.0 h on 4 where all share the work"


@pytest.mark.parametrize("name", ["in512", "cc3m"])
def test_timed_stages_do_what_the_plan_counts(name: str) -> None:
    recipe = tiny(name)
    counted = {stage.stage: stage.petaflops for stage in plan(recipe, None, gpu_tflops=1).stages}
    todo = amounts(recipe, None)
    timed = {
        stage.name: stage.total * stage.flops / 1e15
        for stage in time_stages(recipe, AccelerateEngine(), todo, batch_size=1, episodes=2)
    }
    for same in ("train-tokenizer", "tokenize", "train-generator"):
        assert timed[same] == pytest.approx(counted[same])
    drawn = ("search-schedule", "train-policy", "evaluate")
    assert timed["train-policy"] + timed["search, evaluate"] == pytest.approx(
        sum(counted[stage] for stage in drawn)
    )


def test_the_doctor_misses_weights_before_a_run_does(tmp_path: Path) -> None:
    def text(recipe: Recipe) -> str:
        examined = examine(recipe, tmp_path, None, AccelerateEngine(), batch_size=1)
        (found,) = (finding for finding in examined if finding.name == "weights")
        assert not found.ok
        return found.text

    recipe = tiny("coco")
    unknown = replace(recipe, text=replace(recipe.text, encoder="clap"))
    assert text(unknown).startswith("AdanatError: there is no text encoder 'clap'")
    absent = tmp_path / "nat.pth"
    recipe = replace(recipe, generator=replace(recipe.generator, weights=absent))
    assert text(recipe) == f"{absent} does not exist"


def test_weights_that_are_not_there_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nat.pth does not exist: it is to be taken over"):
        train(tiny("in256"), output_dir=tmp_path / "run", generator=tmp_path / "nat.pth")
    assert not (tmp_path / "run").exists()


def test_the_doctor_leaves_out_what_is_taken_over(trained: Run, tmp_path: Path) -> None:
    recipe = replace(
        trained.recipe,
        tokenizer=replace(trained.recipe.tokenizer, weights=tmp_path),
        generator=replace(trained.recipe.generator, weights=tmp_path),
    )
    findings = examine(recipe, tmp_path, trained.data_dir, AccelerateEngine(), batch_size=1)
    names = {finding.name for finding in findings}
    assert not {"train-tokenizer", "train-generator"} & names
    assert "tokenize" in names


def test_the_doctor_reports_what_any_process_finds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("device", True, "a GPU"), Finding("disk", False, "full")]
    engine = AccelerateEngine()
    assert not report(iter(found), engine)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "LOOK"]
    assert report(iter(found[:1]), engine)
    monkeypatch.setattr(AccelerateEngine, "largest", lambda self, number: 1)  # another's
    assert not report(iter(found[:1]), engine)
    monkeypatch.setattr(AccelerateEngine, "process_index", 3)
    capsys.readouterr()
    report(iter(found), engine)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("LOOK")
    assert line.endswith("process 3: full")


def test_processes_that_cannot_share_the_batches_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccelerateEngine, "num_processes", 3)
    with pytest.raises(ValueError, match=r"3 processes cannot share .*generator.batch_size 2048"):
        train(replace(BENCHMARKS["in256"](), precision="no"), output_dir=tmp_path)


def test_the_doctor_says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    findings = examine(tiny("in256"), tmp_path, tmp_path, AccelerateEngine(), batch_size=1)
    data = next(finding for finding in findings if finding.name == "data")
    assert not data.ok
    assert "holds no prepared data" in data.text
