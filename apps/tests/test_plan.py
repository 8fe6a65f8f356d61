"""The plan of a benchmark: its formulas against counted operations, what it says is missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adanat.network_costs import nat_config, text_flops, transformer_cost
from adanat.plan import amounts, format_plan, plan, unequal_batches
from adanat.recipes.benchmarks import BENCHMARKS
from natgen import NAT, NATConfig
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel


@pytest.mark.parametrize(
    "config",
    [
        NATConfig(
            codebook_size=256, grid_size=(8, 8), embed_dim=64, depth=4, num_heads=4, num_classes=9
        ),
        NATConfig(
            codebook_size=256,
            grid_size=(8, 8),
            patch_size=2,
            embed_dim=64,
            depth=4,
            num_heads=4,
            num_classes=9,
        ),
        NATConfig(
            codebook_size=256,
            grid_size=(8, 8),
            embed_dim=64,
            depth=4,
            num_heads=4,
            context_dim=48,
            num_context_tokens=7,
        ),
    ],
)
def test_the_formula_of_the_transformer_agrees_with_counted_operations(config: NATConfig) -> None:
    with torch.device("meta"):
        model = NAT(config).eval().requires_grad_(False)
        tokens = torch.zeros(1, 64, dtype=torch.int64)
        condition = torch.zeros(1, dtype=torch.int64)
        if config.context_dim is not None:
            condition = torch.zeros(1, config.num_context_tokens, config.context_dim)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens, condition)
    found = transformer_cost(config)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_published_sizes() -> None:
    millions = {
        name: transformer_cost(nat_config(build())).parameters / 1e6
        for name, build in BENCHMARKS.items()
    }
    assert millions["in256"] == pytest.approx(194, abs=2)
    assert millions["in512"] == pytest.approx(197, abs=2)
    assert 44 < millions["coco"] < 60
    assert millions["cc3m"] == pytest.approx(504, abs=4)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_plan_names_stages_formulas_and_what_is_missing(name: str) -> None:
    recipe = BENCHMARKS[name]()
    found = plan(recipe, None, gpu_tflops=400)
    text = format_plan(found)
    for stage in ("train-tokenizer", "tokenize", "train-generator", "train-policy", "evaluate"):
        assert stage in text
    assert "3 x pass x batch x steps" in text
    assert f"adanat prepare {recipe.data.source} --output DIR" in text
    assert "vqgan_jax_strongaug" in text
    assert ("text encoder" in text) == (recipe.text.encoder is not None)


def test_hours_follow_from_operations() -> None:
    recipe = BENCHMARKS["in256"]()
    found = plan(recipe, None, gpu_tflops=100)
    training = next(s for s in found.stages if s.stage == "train-generator")
    passes = 500_000 * 2048
    flops = 3 * passes * transformer_cost(nat_config(recipe)).flops
    assert found.gpu_hours(training) == pytest.approx(flops / 100e12 / 3600)


def test_imported_models_leave_out_their_training(tmp_path: Path) -> None:
    recipe = BENCHMARKS["in256"]()
    weights = tmp_path / "absent.pth"
    recipe = replace(
        recipe,
        tokenizer=replace(recipe.tokenizer, weights=tmp_path),
        generator=replace(recipe.generator, weights=weights),
    )
    found = plan(recipe, None, gpu_tflops=400)
    assert not {"train-tokenizer", "train-generator"} & {stage.stage for stage in found.stages}
    assert f"{weights} does not exist" in found.missing


def test_captions_multiply_the_items() -> None:
    coco = amounts(BENCHMARKS["coco"](), None)
    assert coco.items == coco.captions == 5 * (82_783 - 10_000) + 10_000 + 40_504
    in256 = amounts(BENCHMARKS["in256"](), None)
    assert in256.items == 2 * (1_281_167 - 10_000) + 10_000 + 50_000
    assert in256.captions == 0


def test_a_search_without_gradients_is_planned() -> None:
    recipe = BENCHMARKS["in256"]()
    searching = replace(recipe, static_search=replace(recipe.static_search, included=True))
    before, after = (amounts(r, None) for r in (recipe, searching))
    assert (before.searched_static, before.contestants) == (0, 4)
    assert (after.searched_static, after.contestants) == (recipe.images_per_policy, 5)
    lines = format_plan(plan(searching, None, gpu_tflops=100)).splitlines()
    assert any(line.startswith("search-static ") for line in lines)


def test_the_price_of_kept_captions() -> None:
    kept = BENCHMARKS["coco"]()
    (stage,) = (s for s in plan(kept, None, gpu_tflops=400).stages if s.stage == "captions")
    assert stage.gigabytes == pytest.approx(414_419 * 77 * 768 * 2 / 1e9)
    assert stage.petaflops == pytest.approx(414_419 * text_flops(kept) / 1e15)
    on_the_fly = BENCHMARKS["cc3m"]()
    (stage,) = (s for s in plan(on_the_fly, None, gpu_tflops=400).stages if s.stage == "captions")
    assert stage.gigabytes == 0
    assert "657 GB if kept" in stage.formula
    assert stage.petaflops > 500_000 * 2048 * text_flops(on_the_fly) / 1e15


def test_the_formula_of_the_text_encoder_agrees_with_counted_operations() -> None:
    recipe = BENCHMARKS["coco"]()
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    with torch.device("meta"):
        encoder = CLIPTextModel(config).eval()
        embedded = torch.empty(1, recipe.text.num_tokens, 768)
    layers = encoder.get_submodule("encoder.layers")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for layer in layers:
            embedded = layer(embedded, attention_mask=None)
    assert text_flops(recipe) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_what_prepared_data_do_not_say_is_taken_from_the_published(tmp_path: Path) -> None:
    recipe = BENCHMARKS["in256"]()
    found = plan(recipe, tmp_path, gpu_tflops=400)
    assert any(f"{tmp_path} holds no prepared data" in what for what in found.missing)
    assert found.stages == plan(recipe, None, gpu_tflops=400).stages


def test_batches_that_processes_cannot_share_are_named() -> None:
    recipe = BENCHMARKS["in256"]()
    assert not unequal_batches(recipe, 64)
    assert unequal_batches(recipe, 512) == ["tokenizer.batch_size 256", "reward.batch_size 256"]


def test_an_impossible_speed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gpu_tflops must be positive, got 0"):
        plan(BENCHMARKS["in256"](), None, gpu_tflops=0)
