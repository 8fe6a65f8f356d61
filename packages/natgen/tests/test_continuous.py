"""Continuous batching: the same images as one by one, places that stay full, fewer passes."""

import itertools

import pytest
import torch
from natgen import (
    DecodingEnvironment,
    FirstStepCache,
    NoiseSource,
    StaticSchedule,
    generate,
    generate_continuously,
    maskgit,
    published,
)

LABELS = torch.tensor([0, 1, 4, 1, 5, 0, 2, 3, 3, 1, 4])
INDICES = list(range(100, 100 + len(LABELS)))


class Hasty:
    """Reveals everything at a step that the sample's features choose."""

    num_steps = 5

    def __init__(self, seq_len):
        self.seq_len = seq_len

    def __call__(self, features, timestep):
        parameters = published(self.num_steps, guidance_scale=2.0)(features, timestep)
        hurried = features.mean(dim=(1, 2)) * 1e3 % 1.0 < 0.35
        ratio = torch.where(hurried, 0.99 / self.seq_len, parameters["mask_ratio"])
        scale = torch.where(features[:, 0, 0] > 0, parameters["guidance_scale"], 0.0)
        return {**parameters, "mask_ratio": ratio, "guidance_scale": scale}


class Watched:
    """A model that notes the tokens and rows of its passes."""

    def __init__(self, model):
        self.model = model
        self.seq_len, self.mask_token_id = model.seq_len, model.mask_token_id
        self.rows = []

    def __call__(self, tokens, condition):
        self.rows.append(len(tokens))
        return self.model(tokens, condition)

    def null_condition(self, batch_size):
        return self.model.null_condition(batch_size)


def stream(labels=LABELS, indices=INDICES):
    return zip(labels, indices, strict=True)


def plain(model, policy, labels=LABELS, indices=INDICES):
    return generate(
        model,
        policy,
        labels,
        sample_indices=torch.tensor(indices),
        noise=NoiseSource(3),
        record=True,
    )


def run(model, policy, batch_size, samples=None):
    samples = stream() if samples is None else samples
    done = generate_continuously(
        model, policy, samples, batch_size=batch_size, noise=NoiseSource(3)
    )
    return {sample.sample_index: sample for sample in done}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
@pytest.mark.parametrize("deferred", [True, False], ids=["cpu", "gpu"])
def test_images_and_steps_are_those_of_plain_generation(
    class_model, monkeypatch, batch_size, deferred
):
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: deferred)
    monkeypatch.setattr("natgen.continuous.defers_guidance", lambda state: deferred)
    policy = Hasty(class_model.seq_len)
    expected = plain(class_model, policy)
    done = run(class_model, policy, batch_size)
    assert sorted(done) == INDICES
    mask = class_model.mask_token_id
    steps = []
    for row, index in enumerate(INDICES):
        assert torch.equal(done[index].tokens, expected.tokens[row])
        open_steps = sum(bool((step.tokens[row] == mask).any()) for step in expected.steps)
        assert done[index].num_steps == open_steps + 1
        steps.append(done[index].num_steps)
    assert len(set(steps)) >= 3  # they do leave at different times


@pytest.mark.parametrize("schedule", [published(4), maskgit(3)], ids=["guided", "free"])
def test_fixed_schedules_take_all_their_steps(class_model, schedule):
    done = run(class_model, schedule, 4)
    expected = plain(class_model, schedule).tokens
    for row, index in enumerate(INDICES):
        assert torch.equal(done[index].tokens, expected[row])
        assert done[index].num_steps == schedule.num_steps


def test_passes_are_counted_and_fall_with_the_steps(class_model):
    model = Watched(class_model)
    done = run(model, Hasty(class_model.seq_len), 4)
    assert sum(sample.num_passes for sample in done.values()) == pytest.approx(sum(model.rows))
    full = plain(class_model, Hasty(class_model.seq_len)).num_passes * len(LABELS)
    assert sum(model.rows) < 0.9 * full


def test_a_place_is_filled_as_soon_as_it_is_free(class_model):
    values = published(4, guidance_scale=0.0).values.clone()
    values[0, 0] = 0.0  # complete after one step
    model = Watched(class_model)
    done = run(model, StaticSchedule(values), 3)
    assert {sample.num_steps for sample in done.values()} == {1}
    distinct = [len(set(LABELS[first : first + 3].tolist())) for first in range(0, 11, 3)]
    assert model.rows == distinct


def test_stream_is_read_as_places_become_free(class_model):
    endless = ((LABELS[i % len(LABELS)], i) for i in itertools.count())
    read = []

    def watched():
        for item in endless:
            read.append(item[1])
            yield item

    done = generate_continuously(
        class_model, published(2), watched(), batch_size=3, noise=NoiseSource(0)
    )
    assert sorted(sample.sample_index for sample in itertools.islice(done, 3)) == [0, 1, 2]
    assert read == [0, 1, 2]
    next(done)
    assert read == [0, 1, 2, 3, 4, 5]
    assert torch.is_grad_enabled()


def test_first_steps_may_be_kept(class_model):
    policy = Hasty(class_model.seq_len)
    cache = FirstStepCache(class_model, max_bytes=10**6)
    expected = run(class_model, policy, 3)
    for _ in range(2):
        done = run(cache, policy, 3)
        for index, sample in expected.items():
            assert torch.equal(done[index].tokens, sample.tokens)
    # Nothing is left to run but the steps after the first.
    assert sum(s.num_passes for s in done.values()) < sum(s.num_passes for s in expected.values())


def test_environment_tells_the_steps_that_each_episode_needed(class_model):
    policy = Hasty(class_model.seq_len)
    environment = DecodingEnvironment(
        class_model,
        num_steps=policy.num_steps,
        conditions=lambda episodes: LABELS[episodes - 100],
        noise=NoiseSource(3),
    )
    done = run(class_model, policy, 4)
    for _ in range(2):
        view = environment.reset(torch.tensor(INDICES))
        for t in range(policy.num_steps):
            view, _, _ = environment.step(policy(view["features"], t))
        outcome = environment.outcome()
        assert outcome["num_steps"].tolist() == [done[index].num_steps for index in INDICES]


def test_texts(text_model):
    texts = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    done = run(text_model, published(3), 2, zip(texts, range(4), strict=True))
    expected = plain(text_model, published(3), texts, list(range(4))).tokens
    for index, tokens in enumerate(expected):
        assert torch.equal(done[index].tokens, tokens)


def test_empty_stream_and_bad_input(class_model):
    assert run(class_model, published(2), 3, iter(())) == {}
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        run(class_model, published(2), 0)
    with pytest.raises(ValueError, match="label 9 is out of range"):
        run(class_model, published(2), 2, [(torch.tensor(9), 0)])
