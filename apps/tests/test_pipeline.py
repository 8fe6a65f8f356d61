"""The pipeline: pictures in one call, the same after saving, with errors that say what to do."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adanat import NATPipeline
from adanat.cli import main
from adanat.errors import AdanatError, StageError
from adanat.metrics import to_uint8
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.schedule_points import default_point
from natgen import NAT, NATConfig, NoiseSource, generate, published
from PIL import Image
from torch import Tensor
from vqtok import Tokenizer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_labels_give_pictures(pipeline_by_class: NATPipeline) -> None:
    pictures = pipeline_by_class(class_labels=[4, 0, 4], generator=seeded())
    assert [picture.size for picture in pictures] == [(8, 8)] * 3
    tensor = pipeline_by_class(class_labels=[4, 0, 4], generator=seeded(), output_type="tensor")
    expected = to_uint8(tensor).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), expected)


def test_the_generator_decides_the_noise(pipeline_by_class: NATPipeline) -> None:
    def draw(source: torch.Generator) -> Tensor:
        return pipeline_by_class([1, 2], generator=source, output_type="tensor")

    assert torch.equal(draw(seeded(1)), draw(seeded(1)))
    source = seeded(1)
    assert not torch.equal(draw(source), draw(source))
    torch.manual_seed(3)
    first = pipeline_by_class([1, 2], output_type="tensor")
    torch.manual_seed(3)
    assert torch.equal(first, pipeline_by_class([1, 2], output_type="tensor"))


def test_it_draws_what_the_parts_draw(pipeline_by_class: NATPipeline) -> None:
    seed = int(torch.randint(2**62, (), generator=seeded(7)))
    labels = torch.tensor([3, 1])
    generation = generate(
        pipeline_by_class.generator,
        published(5),
        labels,
        sample_indices=torch.arange(2),
        noise=NoiseSource(seed),
    )
    expected = pipeline_by_class.tokenizer.decode(generation.tokens.view(2, 4, 4))
    drawn = pipeline_by_class(
        labels.tolist(), policy="static", num_steps=5, generator=seeded(7), output_type="tensor"
    )
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("kind", ["pipeline_by_class", "pipeline_by_text"])
def test_bf16_is_drawn_by_a_float32_policy(kind: str, request: pytest.FixtureRequest) -> None:
    pipeline: NATPipeline = copy.deepcopy(request.getfixturevalue(kind)).to(torch.bfloat16)
    given = {"class_labels": [2, 2]} if kind == "pipeline_by_class" else {"prompt": ["a dog"] * 2}
    images = pipeline(**given, output_type="tensor")
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert {weight.dtype for weight in pipeline.generator.parameters()} == {torch.bfloat16}
    if pipeline.policy is not None:
        assert {weight.dtype for weight in pipeline.policy.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("policy", "num_steps"),
    [("adaptive", 3), ("static", None), ("static", 6), ("maskgit", 2), ("autonat", 8)],
)
def test_every_policy_decodes(
    pipeline_by_class: NATPipeline, policy: str, num_steps: int | None
) -> None:
    assert len(pipeline_by_class([0], policy=policy, num_steps=num_steps)) == 1
    assert len(pipeline_by_class([0], policy=published(2))) == 1


def test_the_tuned_schedule_serves_at_its_steps(pipeline_by_class: NATPipeline) -> None:
    def draw(policy: object) -> Tensor:
        return pipeline_by_class([1], policy=policy, generator=seeded(), output_type="tensor")

    assert torch.equal(draw("static"), draw(published(3, guidance_scale=1.0)))


def test_guidance_can_be_set(pipeline_by_class: NATPipeline) -> None:
    def passes(scale: float) -> int:
        calls = []
        hook = pipeline_by_class.generator.register_forward_hook(
            lambda module, inputs, output: calls.append(len(inputs[0]))
        )
        pipeline_by_class([0, 1], policy="static", guidance_scale=scale)
        hook.remove()
        return sum(calls)

    assert passes(0.0) == 3 * 2
    assert passes(2.0) > passes(0.0)


def test_captions_give_pictures(pipeline_by_text: NATPipeline) -> None:
    one = pipeline_by_text(prompt="an owl", generator=seeded(), output_type="tensor")
    two = pipeline_by_text(prompt=["an owl", "two fish"], generator=seeded(), output_type="tensor")
    assert one.shape == (1, 3, 8, 8)
    torch.testing.assert_close(two[:1], one)


def test_only_the_masked_tokens_are_drawn_anew(pipeline_by_class: NATPipeline) -> None:
    tokenizer = pipeline_by_class.tokenizer
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    mask = nothing.clone()
    mask[:2] = True
    codes = tokenizer.encode(images)
    seen: list[Tensor] = []
    hook = pipeline_by_class.generator.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0])
    )
    pipeline_by_class([1, 2], images=images, mask=mask, policy="static")
    hook.remove()
    first = torch.cat(seen)[:2].view(2, 4, 4)
    assert torch.equal(first[:, 2:], codes[:, 2:])
    assert (first[:, :2] == pipeline_by_class.generator.mask_token_id).all()
    pictures = [Image.fromarray(p) for p in to_uint8(images).permute(0, 2, 3, 1).numpy()]
    assert len(pipeline_by_class([1, 2], images=pictures, mask=mask.expand(2, 4, 4))) == 2


@pytest.mark.parametrize("kind", ["pipeline_by_class", "pipeline_by_text"])
def test_a_saved_pipeline_draws_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pipeline: NATPipeline = request.getfixturevalue(kind)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = NATPipeline.from_pretrained(tmp_path / "saved")
    condition = {"class_labels": [2, 3]} if kind == "pipeline_by_class" else {"prompt": ["an owl"]}
    for policy in ("static", None):
        before, after = (
            each(**condition, policy=policy, generator=seeded(), output_type="tensor")
            for each in (pipeline, loaded)
        )
        assert torch.equal(before, after)


def test_a_folder_without_a_pipeline_is_named(
    tmp_path: Path, pipeline_by_text: NATPipeline
) -> None:
    with pytest.raises(AdanatError, match="holds no pipeline"):
        NATPipeline.from_pretrained(tmp_path)
    pipeline_by_text.save_pretrained(tmp_path)
    (tmp_path / "generator" / "model.safetensors").unlink()
    with pytest.raises(AdanatError, match=r"generator has no model\.safetensors"):
        NATPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of class_labels and prompt"),
        ({"class_labels": [1], "prompt": "owl"}, "exactly one of class_labels and prompt"),
        ({"prompt": "owl"}, "takes classes: give class_labels"),
        ({"class_labels": [1, 5]}, r"in \[0, 4\], got \[5\]"),
        ({"class_labels": []}, r"at least one in \[0, 4\], got \[\]"),
        ({"class_labels": [1], "num_steps": 4}, r"'adaptive' decodes in 3 steps, got num_steps=4"),
        (
            {"class_labels": [1], "policy": "autonat", "num_steps": 4},
            r"'autonat' decodes in 8 steps, got num_steps=4",
        ),
        ({"class_labels": [1], "policy": "best"}, "no policy 'best'"),
        ({"class_labels": [1], "guidance_scale": -1.0}, r"at least 0, got -1\.0"),
        ({"class_labels": [1], "output_type": "np"}, "'pil' or 'tensor', got 'np'"),
        ({"class_labels": [1], "images": torch.rand(1, 3, 8, 8)}, "images and mask go together"),
        (
            {
                "class_labels": [1],
                "images": torch.rand(2, 3, 8, 8),
                "mask": torch.ones(4, 4, dtype=torch.bool),
            },
            "2 images for 1 conditions",
        ),
        (
            {"class_labels": [1], "images": torch.rand(1, 3, 8, 8), "mask": torch.ones(3, 3)},
            r"bool of shape \(4, 4\) or \(1, 4, 4\), got torch\.float32 of \(3, 3\)",
        ),
    ],
)
def test_wrong_calls_are_refused(
    pipeline_by_class: NATPipeline, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline_by_class(**options)


def test_wrong_calls_on_text_are_refused(pipeline_by_text: NATPipeline) -> None:
    with pytest.raises(ValueError, match="takes text: give prompt"):
        pipeline_by_text(class_labels=[1])
    with pytest.raises(ValueError, match="no learned policy"):
        pipeline_by_text(prompt="owl", policy="adaptive")


def test_parts_must_fit(pipeline_by_class: NATPipeline, pipeline_by_text: NATPipeline) -> None:
    other = NAT(replace(pipeline_by_class.generator.config, codebook_size=17))
    with pytest.raises(ValueError, match="the tokenizer has 16 codes, the transformer 17"):
        NATPipeline(pipeline_by_class.tokenizer, other)
    with pytest.raises(ValueError, match="comes with a text encoder"):
        NATPipeline(pipeline_by_text.tokenizer, pipeline_by_text.generator)


@pytest.fixture
def run_without_policy(tmp_path: Path) -> Run:
    """A run of the tiny recipe with a tokenizer and a transformer, both with random weights."""
    run = Run(get_recipe("tiny"), tmp_path / "run")
    tokenizer = Tokenizer(run.recipe.tokenizer.model)
    sizes = {"codebook_size": tokenizer.codebook_size, "grid_size": tokenizer.grid_size}
    nat = NAT(NATConfig(**sizes, embed_dim=16, depth=2, num_heads=2, num_classes=10))
    with run.stages.tokenizer as stage:
        tokenizer.save_pretrained(run.folder.tokenizer_model)
        stage.finish({})
    with run.stages.generator as stage:
        nat.save_pretrained(run.folder.generator_model)
        stage.finish({})
    return run


def test_a_run_needs_no_policy(
    run_without_policy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_without_policy
    arguments = ["tiny", "--output-dir", str(run.output_dir), "--to", str(tmp_path / "saved")]
    main(["export-pipeline", *arguments])
    assert "no policy is trained yet: pictures follow the published" in capsys.readouterr().out
    hand_made = NATPipeline.from_pretrained(tmp_path / "saved")
    assert hand_made([3])[0].size == (run.recipe.data.image_size,) * 2
    with pytest.raises(ValueError, match=r"no learned policy: .* finish `adanat train-policy` and"):
        hand_made([3], policy="adaptive")

    best = replace(default_point(3), sampling_temperature=0.3)
    with run.stages.schedule as stage:
        stage.finish({"best": asdict(best)})
    tuned = NATPipeline.from_run(run)

    def draw(policy: object) -> Tensor:
        return tuned([3], policy=policy, generator=seeded(), output_type="tensor")

    assert torch.equal(draw(None), draw(best.schedule()))
    assert not torch.equal(draw(None), draw(published(3)))


def test_a_run_needs_a_transformer(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run `adanat train-tokenizer tiny"):
        NATPipeline.from_run(Run(get_recipe("tiny"), tmp_path))
