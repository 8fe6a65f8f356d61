"""The memory of the first step: what it spares, what it holds, and that samples stay the same."""

import copy

import pytest
import torch
from natgen import (
    DecodingEnvironment,
    FirstStepCache,
    NoiseSource,
    generate,
    maskgit,
    published,
)

ROW_BYTES = 12 * (16 + 16) * 4  # L (D + V) float32 numbers of conftest's models


class Counting:
    """A model that counts the rows of its passes."""

    def __init__(self, model):
        self.model = model
        self.seq_len, self.mask_token_id = model.seq_len, model.mask_token_id
        self.grid_size = model.grid_size
        self.rows = []

    def __call__(self, tokens, condition):
        self.rows.append(len(tokens))
        return self.model(tokens, condition)

    def null_condition(self, batch_size):
        return self.model.null_condition(batch_size)


def run(model, schedule, labels, first=0):
    indices = torch.arange(first, first + len(labels))
    return generate(model, schedule, labels, sample_indices=indices, noise=NoiseSource(3))


@pytest.mark.parametrize("schedule", [published(4), maskgit(3)], ids=["guided", "free"])
@pytest.mark.parametrize("deferred", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize("rows", [0, 2, 100], ids=["null only", "two rows", "all rows"])
def test_samples_are_those_of_the_model(class_model, monkeypatch, schedule, deferred, rows):
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: deferred)
    cache = FirstStepCache(class_model, max_bytes=rows * ROW_BYTES)
    plan = torch.tensor([0, 3, 1, 1, 4, 2, 0, 5, 1, 2, 3, 4]).split(4)
    for turn in range(2):
        for number, labels in enumerate(plan):
            first = 100 * turn + 4 * number
            kept, plain = (run(model, schedule, labels, first) for model in (cache, class_model))
            assert torch.equal(kept.tokens, plain.tokens)
            assert torch.equal(kept.parameters, plain.parameters)


def test_each_condition_runs_once_and_passes_are_counted(class_model):
    counting = Counting(class_model)
    cache = FirstStepCache(counting, max_bytes=100 * ROW_BYTES)
    labels = torch.tensor([0, 1, 1, 4])
    first, again = run(cache, published(2), labels), run(cache, published(2), labels)
    assert counting.rows == [3, 1, 4, 4, 4, 4]  # three labels and the null class, then nothing
    assert (first.num_passes, again.num_passes) == (12 / 4, 8 / 4)
    run(cache, published(2), torch.tensor([4, 2]))
    assert counting.rows[6:] == [1, 2, 2]


def test_memory_stays_within_what_was_stated(class_model):
    cache = FirstStepCache(class_model, max_bytes=2 * ROW_BYTES + ROW_BYTES // 2)
    run(cache, published(2), torch.arange(5))
    assert cache.num_bytes == 2 * ROW_BYTES
    assert len(cache) == 3  # two labels and the unconditional one
    stored = sum(part.untyped_storage().nbytes() for row in cache._rows.values() for part in row)
    assert stored == 3 * ROW_BYTES


def test_unconditional_output_is_kept_without_any_room(class_model):
    counting = Counting(class_model)
    cache = FirstStepCache(counting, max_bytes=0)
    for _ in range(2):
        run(cache, published(1), torch.arange(3))
    assert counting.rows == [3, 1, 3]
    assert cache.num_bytes == 0


def test_clear_follows_new_weights(class_model):
    cache = FirstStepCache(class_model, max_bytes=100 * ROW_BYTES)
    labels = torch.arange(4)
    run(cache, published(1), labels)
    with torch.no_grad():
        for parameter in class_model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    expected = run(class_model, published(1), labels).tokens
    assert not torch.equal(run(cache, published(1), labels).tokens, expected)
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)
    assert torch.equal(run(cache, published(1), labels).tokens, expected)


def test_equal_texts_are_recognised(text_model):
    counting = Counting(text_model)
    cache = FirstStepCache(counting, max_bytes=100 * ROW_BYTES)
    text = torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(0))
    plain = run(text_model, published(2), text).tokens
    assert torch.equal(run(cache, published(2), text).tokens, plain)
    counting.rows.clear()
    assert torch.equal(run(cache, published(2), text).tokens, plain)
    assert counting.rows == [3, 3]
    run(cache, published(1), text[:1] + 1e-6)
    assert counting.rows[2:] == [1]


def test_texts_are_recognised_in_the_precision_of_the_model(text_model):
    model = copy.deepcopy(text_model).to(torch.bfloat16)
    cache = FirstStepCache(model, max_bytes=0)
    texts = torch.cat([torch.randn(2, *model.null_condition(1).shape[1:]), model.null_condition(1)])
    assert texts.dtype == torch.float32
    assert [cache.first_step(texts).num_rows for _ in range(2)] == [3, 2]
    assert len(cache) == 1  # the unconditional answer


def test_environment_takes_it_for_a_model(class_model):
    def play(model):
        environment = DecodingEnvironment(
            model, num_steps=2, conditions=lambda episodes: episodes % 3, noise=NoiseSource(1)
        )
        shown = []
        for first in (0, 6):
            view = environment.reset(torch.arange(first, first + 6))
            shown.append(view["features"])
            for t in range(2):
                environment.step(published(2)(view["features"], t))
            shown.append(environment.outcome()["tokens"])
        return shown

    counting = Counting(class_model)
    kept, plain = play(FirstStepCache(counting, max_bytes=10 * ROW_BYTES)), play(class_model)
    assert counting.rows == [3, 1, 6, 6, 6, 6]
    for mine, theirs in zip(kept, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bad_input(class_model):
    with pytest.raises(ValueError, match="max_bytes must be at least 0, got -1"):
        FirstStepCache(class_model, max_bytes=-1)
    with pytest.raises(ValueError, match="label 6 is out of range"):
        run(FirstStepCache(class_model, max_bytes=0), published(1), torch.tensor([6]))
