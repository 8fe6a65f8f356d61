"""Images of a generator: the same however they are shared and whenever they are interrupted."""

import numpy as np
import pytest
import torch
from adanat.errors import DataError, StageError, StorageError
from adanat.evaluation import models
from adanat.evaluation.chunks import collect
from adanat.evaluation.extractors import FEATURES, Identity
from adanat.evaluation.generators import GeneratedSource, balanced, captioned, random
from adanat.evaluation.models import Models, load_policy
from adanat.evaluation.processes import Processes
from adanat.run_folder import RunFolder
from adanat.text import HashedTextEncoder
from untrained_run import CPU, STEPS, pixels, source_of


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
