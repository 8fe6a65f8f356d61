"""Decoding with fixed shapes: equal to `generate` where there is no GPU, and on one by graph."""

import pytest
import torch
from natgen import (
    FirstStepCache,
    NoiseSource,
    StaticDecoder,
    generate,
    maskgit,
    published,
)

LABELS = torch.tensor([0, 3, 1, 1, 5])  # 5 is the null class
INDICES = torch.arange(5) + 7
NOISE = NoiseSource(3)


def expected(model, policy, condition=LABELS, indices=INDICES):
    return generate(model, policy, condition, sample_indices=indices, noise=NOISE).tokens


@pytest.mark.parametrize("policy", [published(4), maskgit(3)], ids=["guided", "free"])
@pytest.mark.parametrize("batch_size", [5, 8], ids=["full", "filled up"])
@pytest.mark.parametrize("which", ["class_model", "patch_model"])
def test_the_tokens_are_those_of_generate(request, monkeypatch, policy, batch_size, which):
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: False)  # as on a GPU
    model = request.getfixturevalue(which)
    decode = StaticDecoder(model, policy, batch_size=batch_size, noise=NOISE)
    assert torch.equal(decode(LABELS, INDICES), expected(model, policy))
    assert torch.equal(decode(LABELS[:2], INDICES[:2]), expected(model, policy)[:2])


def test_text_conditions(text_model):
    context = torch.randn(2, 3, 6)
    decode = StaticDecoder(text_model, published(3), batch_size=4, noise=NOISE)
    indices = torch.tensor([4, 2**40])
    found = decode(context, indices)
    assert torch.equal(found, expected(text_model, published(3), context, indices))


def test_text_conditions_come_in_the_encoders_precision_whatever_the_models(text_model):
    context, indices = torch.randn(2, 3, 6), torch.arange(2)
    model = text_model.to(torch.bfloat16)
    static = StaticDecoder(model, published(3), batch_size=2, noise=NOISE)
    for decode in (static, lambda given, keys: expected(model, published(3), given, keys)):
        assert torch.equal(decode(context, indices), decode(context.bfloat16(), indices))


def test_the_first_pass_may_be_kept_and_the_others_have_one_shape(class_model):
    rows = []

    def counted(module, inputs, output):
        rows.append(len(inputs[0]))

    handle = class_model.register_forward_hook(counted)
    cache = FirstStepCache(class_model, max_bytes=2**20)
    decode = StaticDecoder(class_model, published(3), batch_size=6, noise=NOISE, first=cache)
    first, second = decode(LABELS, INDICES), decode(LABELS, INDICES)
    handle.remove()
    assert torch.equal(first, second)
    assert rows == [4, 12, 12, 12, 12]  # four classes, the null one among them; then never again


def test_results_do_not_share_memory(class_model):
    decode = StaticDecoder(class_model, published(3), batch_size=5, noise=NOISE)
    first = decode(LABELS, INDICES)
    copy = first.clone()
    decode(LABELS.flip(0), INDICES + 100)
    assert torch.equal(first, copy)


def test_bad_batches_are_refused(class_model):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        StaticDecoder(class_model, published(3), batch_size=0, noise=NOISE)
    decode = StaticDecoder(class_model, published(3), batch_size=4, noise=NOISE)
    with pytest.raises(ValueError, match="a batch of 5 is larger than batch_size, 4"):
        decode(LABELS, INDICES)
    with pytest.raises(ValueError, match=r"\(4,\) and \(3,\)"):
        decode(LABELS[:3], INDICES[:4])
    with pytest.raises(ValueError, match="label 6 is out of range"):
        decode(torch.tensor([6]), INDICES[:1])


@pytest.mark.gpu
def test_a_graph_replays_what_generate_does(class_model):
    model, labels, indices = class_model.cuda(), LABELS.cuda(), INDICES.cuda()
    decode = StaticDecoder(model, published(4), batch_size=6, noise=NOISE)
    for shift in range(3):  # captured, replayed, replayed
        given = labels.roll(shift)
        found = decode(given, indices + shift)
        wanted = expected(model, published(4), given, indices + shift)
        assert (found == wanted).float().mean() > 0.99  # rounding differs with the batch


@pytest.mark.gpu
def test_a_replay_never_waits_for_the_device(class_model):
    model = class_model.cuda()
    decode = StaticDecoder(model, published(4), batch_size=5, noise=NOISE)
    decode(LABELS.cuda(), INDICES.cuda())
    inputs = decode._captured[1]
    torch.cuda.set_sync_debug_mode("error")
    try:
        decode._replay(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_autocast_is_refused_on_a_gpu(class_model):
    decode = StaticDecoder(class_model.cuda(), published(3), batch_size=5, noise=NOISE)
    with (
        torch.autocast("cuda", torch.bfloat16),
        pytest.raises(RuntimeError, match="autocast frees its casts"),
    ):
        decode(LABELS.cuda(), INDICES.cuda())
