from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from advreward import Discriminator, DiscriminatorConfig
from torch import Tensor

CHANNELS = {"fine": 6, "coarse": 24}


def build(**kwargs: object) -> Discriminator:
    kwargs.setdefault("num_classes", 3)
    return Discriminator(DiscriminatorConfig(channels=CHANNELS, **kwargs))


def batch(size: int) -> tuple[dict[str, Tensor], Tensor]:
    features = {"fine": torch.randn(size, 6, 8, 8), "coarse": torch.randn(size, 24, 2, 2)}
    return features, torch.arange(size) % 3


def rows(features: dict[str, Tensor], index: list[int]) -> dict[str, Tensor]:
    return {name: x[index] for name, x in features.items()}


def test_every_head_has_the_same_number_of_logits() -> None:
    features, labels = batch(5)
    discriminator = build(logit_size=4)
    assert discriminator(features, labels).shape == (5, 2 * 16)


@pytest.mark.parametrize("training", [False, True])
def test_logits_depend_on_one_image_and_its_condition(training: bool) -> None:
    features, labels = batch(7)
    discriminator = build().double().train(training)
    state = {name: x.clone() for name, x in discriminator.state_dict().items()}

    def judge(index: list[int]) -> Tensor:
        discriminator.load_state_dict(state)  # training moves the spectral-norm estimates on
        return discriminator(rows(features, index), labels[index])

    together = judge(list(range(7)))
    torch.testing.assert_close(judge([4]), together[[4]], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(judge([6, 0, 0]), together[[6, 0, 0]], atol=1e-12, rtol=1e-12)


def test_evaluation_is_a_fixed_function() -> None:
    features, labels = batch(4)
    discriminator = build().eval()
    before = {name: x.clone() for name, x in discriminator.state_dict().items()}
    first, second = discriminator(features, labels), discriminator(features, labels)
    assert torch.equal(first, second)
    assert all(torch.equal(x, before[name]) for name, x in discriminator.state_dict().items())


def test_the_condition_counts() -> None:
    features, labels = batch(6)
    discriminator = build()
    assert not torch.allclose(
        discriminator(features, labels), discriminator(features, (labels + 1) % 3)
    )


def test_vectors_as_conditions() -> None:
    features, _ = batch(6)
    text = build(num_classes=None, condition_dim=5).double().eval()
    condition = torch.randn(6, 5).double()
    logits = text(features, condition)
    assert logits.shape == (6, 2 * 16)
    # The direction of a vector counts, the scale of its encoder does not.
    torch.testing.assert_close(text(features, 7 * condition), logits, atol=1e-6, rtol=1e-6)
    # Linear in the normalised vector: opposite captions lie around "no text".
    around = (logits + text(features, -condition)) / 2
    torch.testing.assert_close(text(features, 0 * condition), around, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(logits, around, atol=1e-3)


def test_a_vector_deviates_as_much_as_a_class() -> None:
    head = build(num_classes=None, condition_dim=512, projection_dim=256).heads["fine"]
    embeddings = torch.nn.functional.normalize(torch.randn(64, 512), dim=1)  # as CLIP's
    assert head.deviation(embeddings).std().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "condition", [torch.zeros(2, 4), torch.zeros(2, 5, 5), torch.zeros(2, 5).long()]
)
def test_vectors_that_do_not_fit_are_refused(condition: Tensor) -> None:
    config = DiscriminatorConfig(channels=CHANNELS, condition_dim=5)
    with pytest.raises(ValueError, match=r"conditions must be floating \(B, 5\), got"):
        config.check_condition(condition)


def test_one_head_by_the_formula() -> None:
    head = build().eval().heads["fine"]
    x, label = torch.randn(1, 6, 8, 8), torch.tensor([2])
    weights = [layer.weight for layer in (head.reduce, head.mix, head.verdict)]
    h1 = F.leaky_relu(F.conv2d(x, weights[0], head.reduce.bias), 0.2)
    mixed = F.conv2d(h1, weights[1], head.mix.bias, padding=1)
    normed = F.group_norm(mixed, 2, head.norm.weight, head.norm.bias)
    h2 = (F.leaky_relu(normed, 0.2) + h1) / math.sqrt(2)
    pooled = F.avg_pool2d(h2, 2)
    o = F.conv2d(pooled, weights[2], head.verdict.bias)
    direction = head.direction + head.deviation.weight[2]
    expected = (o * direction.view(1, -1, 1, 1)).sum(1).flatten(1) / math.sqrt(64)
    torch.testing.assert_close(head(x, label), expected, atol=1e-5, rtol=1e-5)


def test_spectral_norms_approach_one() -> None:
    features, labels = batch(2)
    discriminator = build().train()
    for _ in range(30):
        discriminator(features, labels)
    discriminator.eval()
    for head in discriminator.heads.values():
        for layer in (head.reduce, head.mix, head.verdict):
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert norm.item() == pytest.approx(1.0, abs=0.03)


def test_calibration_levels_the_inputs() -> None:
    features, labels = batch(64)
    plain = build().eval()
    expected = plain(
        {
            name: (x - x.mean((0, 2, 3), keepdim=True))
            / x.std((0, 2, 3), keepdim=True, correction=0)
            for name, x in features.items()
        },
        labels,
    )
    scaled = {name: 100 * x + 7 for name, x in features.items()}
    assert not plain.calibrated
    assert not plain.is_calibrated
    plain.calibrate(scaled)
    assert plain.calibrated
    assert plain.is_calibrated
    torch.testing.assert_close(plain(scaled, labels), expected, atol=1e-4, rtol=1e-4)


def test_a_dead_channel_is_not_blown_up() -> None:
    features, labels = batch(8)
    features["fine"][:, 0] = 0
    discriminator = build()
    discriminator.calibrate(features)
    features["fine"][:, 0] = 0.01
    assert discriminator.heads["fine"].std[0].item() > 1e-3
    assert discriminator(features, labels).isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"channels": {}}, "channels"),
        ({"channels": {"a": 0}}, "'a': 0"),
        ({"num_classes": None}, "exactly one"),
        ({"condition_dim": 4}, "exactly one .* got 3 and 4"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"logit_size": 0}, "logit_size must be at least 1, got 0"),
    ],
)
def test_config_errors_repeat_the_value(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**{"channels": CHANNELS, "num_classes": 3, **kwargs})


def test_maps_that_do_not_fit_are_named() -> None:
    features, labels = batch(2)
    discriminator = build()
    with pytest.raises(ValueError, match=r"'coarse' must be \(B, 24, h, w\), got \(2, 6, 8, 8\)"):
        discriminator({**features, "coarse": features["fine"]}, labels)
    with pytest.raises(ValueError, match=r"no feature map 'coarse' among \['fine'\]"):
        discriminator({"fine": features["fine"]}, labels)
