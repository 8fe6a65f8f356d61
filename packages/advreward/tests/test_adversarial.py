from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from advreward import (
    AdversarialConfig,
    AdversarialReward,
    AugmentConfig,
    Augmenter,
    Discriminator,
    DiscriminatorConfig,
    FrozenFeatures,
    LocalEngine,
    PublishedDiscriminator,
    gradient_penalty,
)
from torch import Tensor


def build(backbone, seed: int = 0, **kwargs: object) -> AdversarialReward:
    torch.manual_seed(seed)
    discriminator = Discriminator(DiscriminatorConfig(channels=backbone.channels, num_classes=4))
    return AdversarialReward(backbone, discriminator, AdversarialConfig(**kwargs))


def sides(size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Dark and bright images, and labels: what is real depends on the label's parity."""
    labels = torch.arange(size) % 4
    dark, bright = 0.6 * torch.rand(size, 3, 16, 16), 0.4 + 0.6 * torch.rand(size, 3, 16, 16)
    even = (labels % 2 == 0).view(-1, 1, 1, 1)
    return torch.where(even, dark, bright), torch.where(even, bright, dark), labels


def train(reward: AdversarialReward, steps: int) -> list[dict[str, float]]:
    real, fake, labels = sides()
    features = reward.extract(real), reward.extract(fake)
    return [reward.update(features[0], labels, features[1], labels) for _ in range(steps)]


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_learns_what_only_the_condition_tells(toy, loss: str) -> None:
    reward = build(toy, learning_rate=5e-3, loss=loss)
    history = train(reward, 40)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.95
    real, fake, labels = sides()
    good = reward({"images": real, "labels": labels})
    bad = reward({"images": fake, "labels": labels})
    assert good.min() > bad.max()


def test_learns_what_only_the_text_tells(toy) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(channels=toy.channels, condition_dim=3)
    reward = AdversarialReward(toy, Discriminator(config), AdversarialConfig(learning_rate=5e-3))
    real, fake, labels = sides()
    condition = torch.randn(4, 3)[labels]
    x, y = reward.extract(real), reward.extract(fake)
    for _ in range(60):
        metrics = reward.update(x, condition, y, condition)
    assert metrics["accuracy"] > 0.95
    good = reward({"images": real, "condition": condition})
    bad = reward({"images": fake, "condition": condition})
    assert good.min() > bad.max()


def test_a_reward_is_a_function_of_one_image(lite0: FrozenFeatures) -> None:
    reward = build(lite0, extract_batch_size=3)
    real, fake, labels = sides(8)
    reward.update(reward.extract(real), labels, reward.extract(fake), labels)
    rewards = reward({"images": real, "labels": labels})
    assert rewards.shape == (8,)
    assert rewards.dtype == torch.float32
    assert not rewards.requires_grad
    assert ((rewards > 0) & (rewards < 1)).all()
    order = torch.tensor([5, 5, 0, 7])
    again = reward({"images": real[order], "labels": labels[order]})
    torch.testing.assert_close(again, rewards[order], atol=2e-3, rtol=0)
    assert torch.equal(reward({"images": real, "labels": labels}), rewards)


def test_cached_features_earn_the_same(toy) -> None:
    reward = build(toy, extract_batch_size=5)
    real, _, labels = sides(12)
    features = reward.extract(real)
    assert {x.dtype for x in features.values()} == {torch.float16}
    torch.testing.assert_close(
        reward.score(features, labels), reward({"images": real, "labels": labels})
    )
    precise = build(toy, feature_dtype="float32")
    torch.testing.assert_close(
        precise({"images": real, "labels": labels}),
        reward({"images": real, "labels": labels}),
        atol=1e-3,
        rtol=0,
    )


def test_the_logit_is_the_log_odds(toy) -> None:
    real, _, labels = sides()
    outcome = {"images": real, "labels": labels}
    logit, probability = build(toy, reward="logit")(outcome), build(toy)(outcome)
    torch.testing.assert_close(logit.sigmoid(), probability)


def test_resumes_bit_for_bit(toy) -> None:
    straight = build(toy)
    torch.manual_seed(1)
    expected = train(straight, 6)[3:]

    first = build(toy)
    torch.manual_seed(1)
    train(first, 3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = build(toy, seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.manual_seed(1)
    assert train(resumed, 3) == expected
    for name, tensor in straight.state_dict()["discriminator"].items():
        assert torch.equal(tensor, resumed.state_dict()["discriminator"][name]), name


def test_features_do_not_depend_on_the_ambient_precision(lite0: FrozenFeatures) -> None:
    reward = build(lite0, feature_dtype="float32")
    images = torch.rand(4, 3, 32, 32)
    expected = reward.extract(images)
    with torch.autocast("cpu", torch.bfloat16):
        features = reward.extract(images)
    for name, x in expected.items():
        assert torch.equal(features[name], x), name


def test_rewards_do_not_depend_on_the_engines_precision(toy) -> None:
    class Half(LocalEngine):
        def autocast(self) -> AbstractContextManager[object]:
            return torch.autocast("cpu", torch.bfloat16)

    plain = build(toy)
    half = AdversarialReward(toy, plain.discriminator, plain.config, Half())
    real, fake, labels = sides()
    x, y = half.extract(real), half.extract(fake)
    half.update(x, labels, y, labels)
    assert torch.equal(half.score(x, labels), plain.score(x, labels))
    health = [reward.overfitting(x, labels, y, labels) for reward in (half, plain)]
    assert health[0] == health[1]


def test_a_gradient_that_is_not_finite_changes_nothing(toy) -> None:
    reward = build(toy)
    train(reward, 2)
    real, fake, labels = sides()
    x, y = reward.extract(real), reward.extract(fake)
    y["fine"][0] = torch.nan
    before = [parameter.clone() for parameter in reward.discriminator.parameters()]
    with pytest.raises(FloatingPointError, match="norm is nan in update 2"):
        reward.update(x, labels, y, labels)
    assert all(map(torch.equal, before, reward.discriminator.parameters()))
    assert not reward.discriminator.training


def test_only_the_first_update_calibrates(toy) -> None:
    reward = build(toy)
    head = reward.discriminator.heads["fine"]
    real, fake, labels = sides()
    x, y = reward.extract(real), reward.extract(fake)
    reward.update(x, labels, y, labels)
    mean = head.mean.clone()
    torch.testing.assert_close(mean.flatten(), x["fine"].float().mean((0, 2, 3)))
    reward.update(y, labels, x, labels)
    assert torch.equal(head.mean, mean)


def test_calibrates_on_the_real_features_of_all_processes(toy) -> None:
    real, fake, labels = sides()

    class TwoProcesses(LocalEngine):
        """The other process holds the same features, the other way round and brighter."""

        def gather(self, tensor: Tensor) -> Tensor:
            return torch.cat([tensor, 3 * tensor.flip(0)])

    plain = build(toy)
    reward = AdversarialReward(toy, plain.discriminator, plain.config, TwoProcesses())
    x, y = reward.extract(real), reward.extract(fake)
    reward.update(x, labels, y, labels)
    for name, head in reward.discriminator.heads.items():
        expected = 2 * x[name].float().mean((0, 2, 3))
        torch.testing.assert_close(head.mean.flatten(), expected, rtol=1e-3, atol=1e-4)


def test_the_backbone_stays_as_it_is(lite0: FrozenFeatures) -> None:
    before = {name: x.clone() for name, x in lite0.state_dict().items()}
    reward = build(lite0)
    train(reward, 1)
    assert all(torch.equal(x, before[name]) for name, x in lite0.state_dict().items())
    assert not any(name.startswith("backbone") for name in reward.state_dict())


def test_sides_may_differ_in_number(toy) -> None:
    reward = build(toy)
    real, fake, labels = sides()
    metrics = reward.update(
        reward.extract(real[:5]), labels[:5], reward.extract(fake[:9]), labels[:9]
    )
    names = {"loss", "accuracy", "real_score", "fake_score", "grad_norm", "skipped"}
    assert set(metrics) == names


@pytest.mark.gpu
def test_sides_may_be_cached_on_different_devices(toy) -> None:
    here, there = build(toy), build(toy)
    there.discriminator.cuda()
    real, fake, labels = sides()
    x, y = here.extract(real), here.extract(fake)
    on_gpu = {name: feature.cuda() for name, feature in y.items()}
    expected = here.update(x, labels, y, labels)
    metrics = there.update(x, labels, on_gpu, labels.cuda())
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_side_without_a_map_is_named(toy) -> None:
    reward = build(toy)
    real, fake, labels = sides()
    x, y = reward.extract(real), reward.extract(fake)
    for features in ((x, {"fine": y["fine"]}), ({"fine": x["fine"]}, y)):
        with pytest.raises(ValueError, match=r"no feature map 'coarse' among \['fine'\]"):
            reward.update(features[0], labels, features[1], labels)


def test_clipping_reports_the_norm_before_it(toy) -> None:
    free, clipped = build(toy), build(toy, max_grad_norm=1e-3)
    torch.manual_seed(1)
    expected = train(free, 1)[0]["grad_norm"]
    torch.manual_seed(1)
    assert train(clipped, 1)[0]["grad_norm"] == pytest.approx(expected, rel=1e-6)
    gradients = [x.grad.norm() for x in clipped.discriminator.parameters()]
    assert torch.stack(gradients).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_updates_run_on_the_given_engine(toy) -> None:
    class Counting(LocalEngine):
        forwards = backwards = 0

        def autocast(self) -> AbstractContextManager[object]:
            self.forwards += 1
            return nullcontext()

        def backward(self, loss: Tensor) -> None:
            self.backwards += 1
            loss.backward()

    engine = Counting()
    plain = build(toy)
    reward = AdversarialReward(toy, plain.discriminator, plain.config, engine)
    train(reward, 2)
    assert (engine.forwards, engine.backwards) == (2, 2)


def test_labels_must_be_whole_numbers(toy) -> None:
    reward = build(toy)
    with pytest.raises(ValueError, match=r"labels must be int64 \(B,\), got torch.float32 \(1,\)"):
        reward({"images": torch.rand(1, 3, 16, 16), "labels": torch.tensor([1.0])})


def test_a_discriminator_that_leads_waits(toy) -> None:
    reward = build(toy, learning_rate=5e-3, max_accuracy=0.8)
    history = train(reward, 40)
    skipped = [row["skipped"] for row in history]
    assert skipped[0] == 0.0
    assert skipped[-1] == 1.0
    assert all((row["accuracy"] > 0.8) == (row["skipped"] == 1.0) for row in history)
    assert history[-1]["grad_norm"] == 0.0
    before = [parameter.clone() for parameter in reward.discriminator.parameters()]
    assert train(reward, 1)[0]["skipped"] == 1.0
    assert all(map(torch.equal, before, reward.discriminator.parameters()))
    # A rollout that fools it sets it going again.
    real, fake, labels = sides()
    metrics = reward.update(reward.extract(fake), labels, reward.extract(real), labels)
    assert metrics["skipped"] == 0.0
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize(("other", "skipped"), [(0.0, 0.0), (1.0, 1.0)])
def test_processes_wait_together(toy, other: float, skipped: float) -> None:
    class TwoProcesses(LocalEngine):
        """The other process's discriminator sees everything, or nothing."""

        def gather(self, tensor: Tensor) -> Tensor:
            return torch.cat([tensor, torch.full_like(tensor, other)])

    leading = build(toy, learning_rate=5e-3)
    assert train(leading, 40)[-1]["accuracy"] > 0.95
    config = AdversarialConfig(max_accuracy=0.8)
    reward = AdversarialReward(toy, leading.discriminator, config, TwoProcesses())
    assert train(reward, 1)[0]["skipped"] == skipped


def test_the_gradient_penalty_flattens_the_real_side(toy) -> None:
    def slope(weight: float) -> float:
        reward = build(toy, learning_rate=5e-3, gradient_penalty=weight)
        train(reward, 20)
        real, _, labels = sides()
        inputs = reward.discriminator.standardize(reward.extract(real))
        for x in inputs.values():
            x.requires_grad_()
        logits = reward.discriminator.judge(inputs, labels)
        return gradient_penalty(logits, list(inputs.values())).item()

    assert slope(1000.0) < 0.1 * slope(0.0)


def test_the_penalty_is_part_of_the_loss(toy) -> None:
    plain, penalised = build(toy), build(toy, gradient_penalty=3.0)
    torch.manual_seed(1)
    without = train(plain, 1)[0]["loss"]
    torch.manual_seed(1)
    assert train(penalised, 1)[0]["loss"] > without


def test_augmentation_never_reaches_the_reward(toy) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(channels=toy.channels, num_classes=4)
    reward = AdversarialReward(
        toy, Discriminator(config), augmenter=Augmenter(AugmentConfig(), seed=3)
    )
    real, _, labels = sides(6)
    outcome = {"images": real, "labels": labels}
    rewards = reward(outcome)
    views = reward.extract_augmented(real, copies=3)
    assert views["fine"].shape == (18, 3, 8, 8)
    first, second, _ = views["fine"].split(6)
    assert not torch.equal(first, second)
    expected = Augmenter(AugmentConfig(), seed=3)(real)
    assert torch.equal(first, reward.extract(expected)["fine"])
    assert torch.equal(reward(outcome), rewards)

    resumed = AdversarialReward(
        toy, Discriminator(config), augmenter=Augmenter(AugmentConfig(), seed=9)
    )
    resumed.load_state_dict(reward.state_dict())
    again, straight = (r.extract_augmented(real)["fine"] for r in (resumed, reward))
    assert torch.equal(again, straight)


def test_without_an_augmenter_copies_are_equal(toy) -> None:
    reward = build(toy)
    real, _, _ = sides(3)
    views = reward.extract_augmented(real, copies=2)["fine"]
    assert torch.equal(views, torch.cat([reward.extract(real)["fine"]] * 2))
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        reward.extract_augmented(real, copies=0)


def test_overfitting_shows_on_images_held_out() -> None:
    class Patches:
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            return {"patches": F.pixel_unshuffle(F.avg_pool2d(images, 4), 2)}

    torch.manual_seed(0)
    condition = torch.zeros(200, dtype=torch.int64)
    config = DiscriminatorConfig(channels={"patches": 12}, num_classes=1, logit_size=1)
    reward = AdversarialReward(
        Patches(), Discriminator(config), AdversarialConfig(learning_rate=3e-2)
    )
    features = reward.extract(torch.rand(216, 3, 16, 16))["patches"]
    seen, fake, heldout = ({"patches": x} for x in features.split([8, 8, 200]))
    few = condition[:8]
    for _ in range(60):
        metrics = reward.update(seen, few, fake, few)
    # Nothing tells real from fake here: all that it knows, it has learned by heart.
    assert metrics["accuracy"] > 0.95
    health = reward.overfitting(seen, few, heldout, condition)
    assert health["heldout_gap"] > 0.4
    assert health["heldout_accuracy"] < 0.6
    assert reward.overfitting(seen, few, seen, few)["heldout_gap"] == 0.0


def test_published_heads_train_and_depend_on_the_batch(toy) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(channels={"fine": 3}, num_classes=4, projection_dim=8)
    reward = AdversarialReward(
        toy, PublishedDiscriminator(config), AdversarialConfig(learning_rate=1e-2)
    )
    history = train(reward, 30)
    assert history[-1]["loss"] < history[0]["loss"]
    real, _, labels = sides(16)
    together = reward({"images": real, "labels": labels})
    other = torch.cat([real[:8], 1 - real[8:]])
    torch.testing.assert_close(reward({"images": other, "labels": labels})[:8], together[:8])
    mixed = torch.cat([real[:4], 1 - real[4:]])
    assert not torch.allclose(reward({"images": mixed, "labels": labels})[:4], together[:4])
    with pytest.raises(ValueError, match="a batch of 9 does not divide into 2 equal groups"):
        reward({"images": real[:9], "labels": labels[:9]})


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_named(toy, label: int) -> None:
    reward = build(toy)
    with pytest.raises(ValueError, match=rf"labels must be in \[0, 4\).*{label}"):
        reward({"images": torch.rand(1, 3, 16, 16), "labels": torch.tensor([label])})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"betas": (0.5, 1.0)}, r"betas .*\(0.5, 1.0\)"),
        ({"loss": "wgan"}, "'wgan'"),
        ({"reward": "fid"}, "'fid'"),
        ({"max_grad_norm": -1.0}, "max_grad_norm .* -1.0"),
        ({"extract_batch_size": 0}, "extract_batch_size .* 0"),
        ({"feature_dtype": "int8"}, "'int8'"),
        ({"gradient_penalty": -0.5}, "gradient_penalty must be at least 0, got -0.5"),
        ({"max_accuracy": 0.5}, r"max_accuracy must be between 0.5 .* got 0.5"),
    ],
)
def test_config_errors_repeat_the_value(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialConfig(**kwargs)
