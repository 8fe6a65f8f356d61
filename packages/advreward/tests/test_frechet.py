from __future__ import annotations

import math

import pytest
import torch
from advreward import FrechetReward, GaussianStatistics, frechet_credit, frechet_reference
from scipy.linalg import sqrtm
from torch import Tensor


def draw(count: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, dim, dtype=torch.float64, generator=generator)
    return scale * noise @ mixing + shift


def distance(features: Tensor, reference: GaussianStatistics) -> float:
    """The textbook formula, with SciPy's matrix square root."""
    batch = GaussianStatistics.of(features)
    root = sqrtm((batch.covariance @ reference.covariance).numpy())
    traces = batch.covariance.trace() + reference.covariance.trace()
    return float((batch.mean - reference.mean).square().sum() + traces - 2 * root.trace().real)


def test_one_dimension_by_hand() -> None:
    features, reference = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [10.0]])
    value, credit = frechet_credit(features, GaussianStatistics.of(reference))
    assert value.item() == pytest.approx((2 - 5) ** 2 + (1 - 5) ** 2)
    # d(mean) = +-1, d(variance) = 0: credit is -2 (2 - 5) d.
    assert credit.tolist() == pytest.approx([-6.0, 6.0])


def test_equals_the_textbook_formula() -> None:
    reference = GaussianStatistics.of(draw(500, 5, 0))
    features = draw(200, 5, 1, scale=1.4, shift=0.3)
    value, _ = frechet_credit(features, reference)
    assert value.item() == pytest.approx(distance(features, reference), rel=1e-8)


def test_credit_is_the_derivative_by_a_samples_weight() -> None:
    reference = GaussianStatistics.of(draw(500, 3, 0))
    features = draw(40, 3, 1, scale=0.7, shift=0.2)
    _, credit = frechet_credit(features, reference)
    count, step = len(features), 1e-5

    def moved(index: int, amount: float) -> float:
        """Distance of the batch with a share of its weight moved to one sample."""
        weights = torch.full((count,), (1 - amount) / count, dtype=torch.float64)
        weights[index] += amount
        mean = weights @ features
        covariance = (features - mean).T @ (weights[:, None] * (features - mean))
        root = sqrtm((covariance @ reference.covariance).numpy()).trace().real
        traces = covariance.trace() + reference.covariance.trace()
        return float((mean - reference.mean).square().sum() + traces - 2 * root)

    for index in range(0, count, 7):
        slope = (moved(index, step) - moved(index, -step)) / (2 * step)
        assert credit[index].item() == pytest.approx(-slope, abs=1e-5, rel=1e-5)
    assert credit.sum().item() == pytest.approx(0.0, abs=1e-9)


def test_credit_approaches_leaving_one_out() -> None:
    reference = GaussianStatistics.of(draw(500, 3, 0))

    def error(count: int) -> float:
        features = draw(count, 3, 1, scale=1.3, shift=0.1)
        value, credit = frechet_credit(features, reference)
        without = [
            distance(torch.cat([features[:i], features[i + 1 :]]), reference) for i in range(count)
        ]
        brute = (count - 1) * (torch.tensor(without, dtype=torch.float64) - value)
        assert torch.corrcoef(torch.stack([brute, credit]))[0, 1] > 0.99
        return float((brute - credit).abs().mean() / brute.abs().mean())

    few, many = error(60), error(240)
    assert few < 0.1
    assert many < 0.4 * few  # of order 1/N


def test_a_batch_without_a_mode_pays_for_that_mode() -> None:
    left, right = draw(200, 2, 0) * 0.1 - 3, draw(200, 2, 1) * 0.1 + 3
    reference = GaussianStatistics.of(torch.cat([left, right]))
    _, credit = frechet_credit(torch.cat([left[:90], right[:10]]), reference)
    assert credit[90:].min() > credit[:90].max()


def test_fewer_samples_than_dimensions_stay_finite() -> None:
    reference = GaussianStatistics.of(draw(100, 12, 0))
    features = draw(6, 12, 1)
    value, credit = frechet_credit(features, reference)
    assert value.item() == pytest.approx(distance(features, reference), rel=1e-4)
    assert credit.isfinite().all()


class Colours:
    """Six numbers an image: mean and deviation of each channel."""

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], dim=1)


def test_rewards_average_to_minus_the_distance() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(300, 3, 4, 4), torch.rand(50, 3, 4, 4) ** 2
    reference = frechet_reference(Colours(), real, batch_size=77)
    for components in (None, 4):
        reward = FrechetReward(Colours(), reference, num_components=components, batch_size=16)
        rewards = reward({"images": fake})
        assert rewards.shape == (50,)
        assert rewards.dtype == torch.float32
        axes = reference.principal_axes(components or 6)
        expected = distance(Colours()(fake).double() @ axes, reference.project(axes))
        assert rewards.mean().item() == pytest.approx(-expected, rel=1e-4)


def test_principal_axes_hold_the_most_variance() -> None:
    features = draw(300, 4, 0)
    statistics = GaussianStatistics.of(features)
    axes = statistics.principal_axes(2)
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    singular = torch.linalg.svdvals(features - features.mean(0))
    kept = statistics.project(axes).covariance.diagonal()
    torch.testing.assert_close(kept, singular[:2].square() / 300)


def test_refuses_what_has_no_distance() -> None:
    with pytest.raises(ValueError, match=r"N >= 2 .* got \(1, 3\)"):
        GaussianStatistics.of(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="must be finite"):
        GaussianStatistics.of(torch.tensor([[1.0], [math.nan]]))
    statistics = GaussianStatistics.of(draw(9, 3, 0))
    with pytest.raises(ValueError, match=r"count must be in \[1, 3\], got 4"):
        FrechetReward(Colours(), statistics, num_components=4)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        FrechetReward(Colours(), statistics, num_components=None, batch_size=0)
    with pytest.raises(ValueError, match=r"\(B, D\) features, got \(5, 3, 2, 2\)"):
        frechet_reference(lambda images: images, torch.rand(5, 3, 2, 2))
