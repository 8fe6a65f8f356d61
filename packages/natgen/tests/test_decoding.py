"""Parallel decoding: an independent oracle, invariances, pass counts, failures."""

import pytest
import torch
from natgen import (
    NATOutput,
    NoiseSource,
    StaticSchedule,
    decoding,
    generate,
    init_state,
    maskgit,
    observe,
    published,
    step,
)

LABELS = torch.tensor([0, 1, 4, 1, 5, 0, 2])
INDICES = torch.arange(len(LABELS)) + 100


def plain_generate(model, schedule, labels, indices, noise):
    """The published loop for one sample at a time, with nothing shared and nothing spared."""
    images = []
    for label, index in zip(labels, indices, strict=True):
        ids = torch.full((1, model.seq_len), model.mask_token_id)
        for t, row in enumerate(schedule.values.tolist()):
            ratio, remask_temperature, temperature, scale = row
            cond = model(ids, label[None]).logits
            uncond = model(ids, model.null_condition(1)).logits
            guided = cond + scale * (cond - uncond)
            cumulative = (guided / temperature).softmax(-1).cumsum(-1)
            u = noise.uniform(index[None], t, 0, model.seq_len)
            drawn = (cumulative < u[..., None]).sum(-1)
            masked = ids == model.mask_token_id
            drawn = torch.where(masked, drawn, ids)
            score = guided.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            score = score + remask_temperature * noise.gumbel(index[None], t, 1, model.seq_len)
            score[~masked] = torch.inf
            count = min(int(model.seq_len * ratio), model.seq_len - 1)
            ids = drawn.clone()
            ids[score < score.sort().values[:, count : count + 1]] = model.mask_token_id
        images.append(drawn)
    return torch.cat(images)


class Counting:
    """A model that counts its passes and rows."""

    def __init__(self, model):
        self.model = model
        self.seq_len, self.mask_token_id = model.seq_len, model.mask_token_id
        self.rows = []

    def __call__(self, tokens, condition):
        self.rows.append(len(tokens))
        return self.model(tokens, condition)

    def null_condition(self, batch_size):
        return self.model.null_condition(batch_size)


def run(model, schedule, labels=LABELS, indices=INDICES, seed=3, **options):
    return generate(
        model, schedule, labels, sample_indices=indices, noise=NoiseSource(seed), **options
    )


@pytest.mark.parametrize("schedule", [published(5), maskgit(3), published(1)])
def test_equals_the_plain_loop(class_model, schedule):
    with torch.no_grad():
        expected = plain_generate(class_model, schedule, LABELS, INDICES, NoiseSource(3))
    assert torch.equal(run(class_model, schedule).tokens, expected)


def test_same_arguments_same_result(class_model):
    first, second = (run(class_model, published(4)) for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)
    assert not torch.equal(first.tokens, run(class_model, published(4), seed=4).tokens)


def test_batching_does_not_change_a_sample(class_model):
    whole = run(class_model, published(4)).tokens
    for rows in (slice(0, 2), slice(2, 3), slice(3, 7)):
        part = run(class_model, published(4), LABELS[rows], INDICES[rows]).tokens
        assert torch.equal(part, whole[rows])


def test_slices_that_fit_a_cache_change_nothing(class_model, monkeypatch):
    whole = run(class_model, published(4, guidance_scale=1.5), record=True)
    monkeypatch.setattr(decoding, "_CACHED_LOGITS", 1)  # one sample at a time
    sliced = run(class_model, published(4, guidance_scale=1.5), record=True)
    assert torch.equal(sliced.tokens, whole.tokens)
    for before, after in zip(whole.steps, sliced.steps, strict=True):
        assert torch.equal(after.tokens, before.tokens)


def test_record_and_parameters(class_model):
    schedule = published(4)
    generation = run(class_model, schedule, record=True)
    assert torch.equal(generation.parameters, schedule.values.expand(len(LABELS), 4, 4))
    assert len(generation.steps) == 4
    mask = class_model.mask_token_id
    previous = torch.full_like(generation.tokens, mask)
    for t, record in enumerate(generation.steps):
        assert (record.drawn < mask).all()
        kept = previous != mask
        assert torch.equal(record.drawn[kept], previous[kept])
        shown = record.tokens != mask
        assert torch.equal(record.tokens[shown], record.drawn[shown])
        count = 0 if t == 3 else int(class_model.seq_len * schedule.values[t, 0])
        assert (record.tokens == mask).sum(1).tolist() == [count] * len(LABELS)
        previous = record.tokens
    assert torch.equal(generation.steps[-1].tokens, generation.tokens)
    assert run(class_model, schedule).steps == ()


def test_last_mask_ratio_and_remask_temperature_do_nothing(class_model):
    values = published(3).values
    changed = values.clone()
    changed[-1, :2] = torch.tensor([0.9, 30.0])
    first, second = (run(class_model, StaticSchedule(v), record=True) for v in (values, changed))
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(second.steps[-1].tokens, second.tokens)


def test_passes_are_shared_and_spared(class_model):
    size, distinct = len(LABELS), len(LABELS.unique())
    guided = Counting(class_model)
    generation = run(guided, published(4))
    assert guided.rows == [distinct, 1] + [size] * 6
    assert generation.num_passes == sum(guided.rows) / size
    free = Counting(class_model)
    generation = run(free, maskgit(4))
    assert free.rows == [distinct, size, size, size]
    assert generation.num_passes == sum(free.rows) / size


def test_both_branches_share_a_batch_where_reading_the_scales_would_wait(class_model, monkeypatch):
    size, distinct = len(LABELS), len(LABELS.unique())
    deferred = run(class_model, published(4))
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: False)
    guided = Counting(class_model)
    generation = run(guided, published(4))
    assert guided.rows == [distinct + 1, 2 * size, 2 * size, 2 * size]
    assert generation.num_passes == sum(guided.rows) / size
    assert torch.equal(generation.tokens, deferred.tokens)


def test_only_guided_samples_run_the_unconditional_branch(class_model):
    class Mixed:  # guides every second sample
        num_steps = 3

        def __call__(self, features, timestep):
            parameters = published(3)(features, timestep)
            even = torch.arange(len(features)) % 2 == 0
            return {**parameters, "guidance_scale": torch.where(even, 2.0, 0.0)}

    model = Counting(class_model)
    generation = run(model, Mixed())
    size, distinct = len(LABELS), len(LABELS.unique())
    assert model.rows == [distinct, 1, size, 4, size, 4]
    alone = generate(
        class_model, Mixed(), LABELS[:1], sample_indices=INDICES[:1], noise=NoiseSource(5)
    )
    again = generate(class_model, Mixed(), LABELS, sample_indices=INDICES, noise=NoiseSource(5))
    assert torch.equal(alone.tokens, again.tokens[:1])
    assert generation.num_passes == sum(model.rows) / size


def test_guidance_of_zero_equals_leaving_it_out(class_model):
    class Unaware:  # the same numbers without the knowledge that nothing guides
        num_steps = 4

        def __call__(self, features, timestep):
            return maskgit(4)(features, timestep)

    assert torch.equal(run(class_model, Unaware()).tokens, run(class_model, maskgit(4)).tokens)


def test_first_observation_equals_a_full_pass(class_model, text_model):
    text = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    for model, condition in ((class_model, LABELS), (text_model, text)):
        state = init_state(model, condition, torch.arange(len(condition)))
        with torch.no_grad():
            shared = observe(model, state)
            cond = model(state.tokens, condition)
            uncond = model(state.tokens, model.null_condition(len(condition)))
        close = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(shared.features, cond.features, **close)
        torch.testing.assert_close(shared.cond_logits, cond.logits, **close)
        torch.testing.assert_close(shared.uncond_logits, uncond.logits, **close)


def test_text_generation(text_model):
    text = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    whole = run(text_model, published(3), text, torch.arange(4)).tokens
    part = run(text_model, published(3), text[1:3], torch.arange(1, 3)).tokens
    assert torch.equal(part, whole[1:3])


def test_a_policy_may_differ_between_samples_and_sees_features(class_model):
    seen = []

    class Policy:
        num_steps = 2

        def __call__(self, features, timestep):
            seen.append((tuple(features.shape), timestep))
            ramp = torch.linspace(0.1, 0.9, len(features))
            return {
                "mask_ratio": ramp,
                "remask_temperature": ramp,
                "sampling_temperature": ramp,
                "guidance_scale": ramp,
            }

    generation = run(class_model, Policy(), record=True)
    assert seen == [((7, 12, 16), 0), ((7, 12, 16), 1)]
    expected = (torch.linspace(0.1, 0.9, 7) * 12).floor().long()
    assert torch.equal((generation.steps[0].tokens == 16).sum(1), expected)


def test_steps_by_hand_equal_generate(class_model):
    schedule, noise = published(3), NoiseSource(3)
    state = init_state(class_model, LABELS, INDICES)
    with torch.no_grad():
        for _ in range(3):
            state, _ = step(class_model, schedule, state, noise)
    assert torch.equal(state.drawn, run(class_model, schedule).tokens)
    assert state.timestep == 3


def test_bad_input(class_model):
    with pytest.raises(ValueError, match="label 6 is out of range"):
        run(class_model, published(2), torch.tensor([0, 6]), torch.arange(2))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        run(class_model, published(2), torch.tensor([0, 1]), torch.arange(3))
    with pytest.raises(ValueError, match="at least one condition"):
        run(class_model, published(2), LABELS[:0], INDICES[:0])


def test_half_precision_logits(class_model):
    class Half(Counting):
        def __call__(self, tokens, condition):
            features, logits = super().__call__(tokens, condition)
            return NATOutput(features.bfloat16(), logits.bfloat16())

    tokens = run(Half(class_model), published(3)).tokens
    assert tokens.min() >= 0
    assert tokens.max() < 16


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu(class_model):
    expected = run(class_model, published(4))
    on_gpu = run(class_model.cuda(), published(4), LABELS.cuda())
    assert (on_gpu.tokens.cpu() == expected.tokens).float().mean() > 0.99
