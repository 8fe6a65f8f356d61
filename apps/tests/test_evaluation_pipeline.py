"""A saved pipeline as the source of an evaluation: what its parts draw, by sample index."""

import json

import numpy as np
import pytest
import torch
from adanat.errors import AdanatError, DataError, StageError
from adanat.evaluation import SourceEvaluation, evaluate_source
from adanat.evaluation.judged import open_judged
from adanat.generation import Generator, balanced_labels
from adanat.run_folder import RunFolder
from adanat.runs import Stage
from adanat.seeding import derive_seed
from adanat.text import HashedTextEncoder
from natgen import maskgit, published
from PIL import Image

CPU = torch.device("cpu")
TUNED = published(3, guidance_scale=1.0)


@pytest.fixture(scope="module")
def by_class(pipeline_by_class, tmp_path_factory):
    """A pipeline and its folder."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline_by_class.save_pretrained(folder)
    return pipeline_by_class, folder


@pytest.fixture(scope="module")
def by_text(pipeline_by_text, tmp_path_factory):
    """A pipeline and its folder."""
    folder = tmp_path_factory.mktemp("captions")
    pipeline_by_text.save_pretrained(folder)
    return pipeline_by_text, folder


@pytest.fixture
def captioned_images(tmp_path):
    """Five images, each with a caption in a file beside it."""
    folder = tmp_path / "real"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a picture of {index}")
    return folder


def judged(folder, seed=0, **options):
    defaults = {"num_samples": 8, "batch_size": 4, "metrics": ("inception-score",)}
    chosen = SourceEvaluation(
        source=str(folder), output=folder / "out.json", seeds=(seed,), **defaults | options
    )
    return open_judged(chosen, CPU)[seed]


def drawn(pipeline, policy, plan, seed=0):
    """The images 0 to 7 as the parts draw them."""
    generator = Generator(pipeline.generator, pipeline.tokenizer, plan, 4)
    batches = generator.batches(policy, seed=derive_seed(0, "test", seed), num_samples=8)
    return torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()


def pixels(source, start=0, stop=8):
    return np.stack([item.image for item in source.items(start, stop)])


@pytest.mark.parametrize(
    ("options", "decoding"),
    [
        ({}, None),
        ({"policy": "static"}, TUNED),
        ({"policy": "static", "num_steps": 3}, TUNED),
        ({"policy": "static", "num_steps": 5}, published(5)),
        ({"policy": "maskgit", "num_steps": 2}, maskgit(2)),
    ],
)
def test_its_images_are_those_of_its_parts(by_class, options, decoding):
    pipeline, folder = by_class
    source = judged(folder, seed=1, **options)
    expected = drawn(
        pipeline, decoding or pipeline.policy, lambda indices: balanced_labels(indices, 5), seed=1
    )
    np.testing.assert_array_equal(pixels(source), expected)
    np.testing.assert_array_equal(pixels(source, 4, 8), expected[4:])


def test_labels_may_be_drawn_at_random(by_class):
    source = judged(by_class[1], labels="random")
    assert source.label_plan == "random labels (5 classes)"
    labels = [item.label for item in source.items(0, 8)]
    assert labels == [item.label for item in judged(by_class[1], labels="random").items(0, 8)]
    assert labels != [index % 5 for index in range(8)]


def test_captions_are_those_of_the_reference(by_text, captioned_images):
    pipeline, folder = by_text
    options = {"reference": str(captioned_images), "labels": "captions", "policy": "static"}
    source = judged(folder, num_samples=4, **options)
    assert "4 captions, encoded by" in source.label_plan
    captions = [f"a picture of {index}" for index in range(4)]
    assert [item.caption for item in source.items(0, 4)] == captions
    features = pipeline.text_encoder(captions)[0]
    expected = drawn(pipeline, published(8), lambda indices: features[indices % 4])
    np.testing.assert_array_equal(pixels(source, 0, 4), expected[:4])
    (captioned_images / "2.txt").unlink()
    with pytest.raises(DataError, match=r"image 2 of .* has no caption"):
        judged(folder, num_samples=4, **options)
    with pytest.raises(DataError, match="knows captions"):
        judged(folder, policy="static")


def test_a_caption_is_encoded_once_for_its_image(by_text, captioned_images, monkeypatch):
    options = {"reference": str(captioned_images), "labels": "captions", "policy": "static"}
    source = judged(by_text[1], num_samples=4, **options)
    encoded, encode = [], HashedTextEncoder.__call__

    def listed(encoder, captions):
        encoded.extend(captions)
        return encode(encoder, captions)

    monkeypatch.setattr(HashedTextEncoder, "__call__", listed)
    drawn_of = [item.caption for item in source.items(0, 4)]
    assert encoded == drawn_of == [f"a picture of {index}" for index in range(4)]


def test_captions_of_a_run_are_encoded_as_in_its_training(by_text, captioned_images, tmp_path):
    pipeline, _ = by_text
    run = RunFolder(tmp_path / "run")
    pipeline.tokenizer.save_pretrained(run.tokenizer_model)
    pipeline.generator.save_pretrained(run.generator_model)
    options = {"reference": str(captioned_images), "labels": "captions", "policy": "static"}
    options |= {"num_samples": 4, "num_steps": 8}
    with pytest.raises(StageError, match="names no text encoder: name it by --text-encoder"):
        judged(run.root, **options)
    named = judged(run.root, text_encoder="hashed", **options)
    text = {"encoder": "hashed", "num_tokens": 6}
    stage = Stage("train-generator", run.generator, {"text": text})
    with stage:
        stage.finish({})
    found = judged(run.root, **options)
    assert found.label_plan == named.label_plan == "4 captions, encoded by hashed, 6 tokens"
    np.testing.assert_array_equal(pixels(found, 0, 4), pixels(named, 0, 4))


def test_an_evaluation_of_it_is_whole(by_class, captioned_images, tmp_path):
    result = evaluate_source(
        SourceEvaluation(
            source=str(by_class[1]),
            reference=str(captioned_images),
            metrics=("lite2-kid", "recall"),
            policy="static",
            num_steps=2,
            num_samples=7,
            batch_size=4,
            feature_size=32,
            cache_dir=tmp_path / "cache",
            output=tmp_path / "out.json",
        )
    )
    assert result.num_steps == 2
    assert result.cost["network_passes"] > 0
    assert f"{by_class[1]}, policy static, 2 steps" in result.source
    assert result.label_plan == "balanced labels (5 classes, 1 or 2 samples each)"
    assert [figure.num_reference for figure in result.figures] == [5, 5]


def test_what_it_does_not_hold_is_refused(by_class, by_text, tmp_path):
    with pytest.raises(ValueError, match="no learned policy"):
        judged(by_text[1], labels="captions")
    with pytest.raises(ValueError, match="'adaptive' decodes in 3 steps, got num_steps=4"):
        judged(by_class[1], num_steps=4)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}))
    with pytest.raises(AdanatError, match="another library's pipeline"):
        judged(tmp_path)
