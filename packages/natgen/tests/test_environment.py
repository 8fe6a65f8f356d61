"""The decoding environment: the same images as `generate`, and its protocol."""

import weakref

import pytest
import torch
from natgen import DecodingEnvironment, NoiseSource, generate, published


def labels_of(episodes):
    return episodes % 6


def make(model, num_steps=4):
    return DecodingEnvironment(
        model, num_steps=num_steps, conditions=labels_of, noise=NoiseSource(9)
    )


def test_episodes_equal_generate(class_model):
    environment, schedule = make(class_model), published(4)
    episodes = torch.arange(40, 49)
    observation = environment.reset(episodes)
    for t in range(4):
        assert observation["features"].shape == (9, 12, 16)
        assert observation["timestep"].tolist() == [t] * 9
        assert not observation["features"].requires_grad
        action = schedule(observation["features"], t)
        observation, reward, terminated = environment.step(action)
        assert reward.tolist() == [0.0] * 9
        assert terminated.tolist() == [t == 3] * 9
    outcome = environment.outcome()
    expected = generate(
        class_model,
        schedule,
        labels_of(episodes),
        sample_indices=episodes,
        noise=NoiseSource(9),
    )
    assert torch.equal(outcome["tokens"], expected.tokens.view(9, 3, 4))
    assert torch.equal(outcome["episodes"], episodes)
    assert torch.equal(outcome["labels"], labels_of(episodes))


def test_an_episode_ends_when_nothing_is_masked(class_model):
    """Episode 1 reveals all at once; whatever follows leaves its image as it is."""
    environment = make(class_model)
    environment.reset(torch.arange(2))
    ends, tokens = [], []
    for t in range(4):
        action = published(4)(torch.zeros(2, 1, 1), t)
        ratio = torch.tensor([0.5, 0.0 if t == 0 else 0.9])
        _, _, terminated = environment.step({**action, "mask_ratio": ratio})
        ends.append(terminated.tolist())
        tokens.append(environment._started()[0].tokens[1])
    assert ends == [[False, True]] * 3 + [[True, True]]
    assert all(torch.equal(tokens[0], later) for later in tokens[1:])
    outcome = environment.outcome()
    assert torch.equal(outcome["tokens"][1].flatten(), tokens[0])
    assert outcome["num_steps"].tolist() == [4, 1]


def test_observations_can_train_a_network(class_model):
    features = make(class_model).reset(torch.arange(3))["features"]
    layer = torch.nn.Linear(16, 1)
    layer(features).sum().backward()  # inference tensors would refuse
    assert layer.weight.grad is not None


def test_text_outcome(text_model):
    text = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    environment = DecodingEnvironment(
        text_model, num_steps=1, conditions=lambda episodes: text, noise=NoiseSource(0)
    )
    features = environment.reset(torch.arange(2))["features"]
    environment.step(published(1)(features, 0))
    assert torch.equal(environment.outcome()["context"], text)


def test_no_pass_follows_the_last_step(class_model):
    calls = []
    class_model.register_forward_hook(lambda *args: calls.append(len(args[2].logits)))
    environment = make(class_model, num_steps=2)
    features = environment.reset(torch.arange(3))["features"]
    for t in range(2):
        environment.step(published(2)(features, t))
    assert calls == [3, 1, 3, 3]  # conditional, guided: of masks alone one row guides all


def test_no_logits_outlive_the_episodes(class_model):
    outputs = []
    class_model.register_forward_hook(lambda *args: outputs.append(weakref.ref(args[2].logits)))
    environment = make(class_model, num_steps=2)
    observation = environment.reset(torch.arange(3))
    for t in range(2):
        observation, _, _ = environment.step(published(2)(observation["features"], t))
    assert observation["features"].shape == (3, 12, 16)
    assert [logits() for logits in outputs] == [None] * 4


def test_misuse(class_model):
    environment = make(class_model, num_steps=1)
    with pytest.raises(RuntimeError, match="reset"):
        environment.step({})
    features = environment.reset(torch.arange(3))["features"]
    with pytest.raises(RuntimeError, match="step 0 of 1"):
        environment.outcome()
    action = published(1)(features, 0)
    partial = {name: value for name, value in action.items() if name != "mask_ratio"}
    with pytest.raises(KeyError, match="mask_ratio"):
        environment.step(partial)
    environment.step(action)
    with pytest.raises(RuntimeError, match="ended after 1 steps"):
        environment.step(action)
    with pytest.raises(ValueError, match="got 0"):
        make(class_model, num_steps=0)
