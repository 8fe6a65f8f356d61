"""Distances against clean-fid, torch-fidelity's definition and closed forms."""

import itertools

import cleanfid.fid
import numpy as np
import pytest
import torch
from adanat.metrics import (
    FeatureStatistics,
    KernelSubsets,
    PrincipalComponents,
    Reference,
    all_scores,
    compare_pairs,
    frechet_distance,
    frechet_score,
    kernel_distance,
    own_pairs,
    precision_recall,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_part


def draw(seed, count, dim, shift=0.0, scale=1.0):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dim, dim)) / np.sqrt(dim)
    return (generator.normal(size=(count, dim)) @ mixing * scale + shift).astype(np.float32)


@pytest.mark.parametrize(("count", "dim"), [(200, 8), (500, 64), (150, 100)])
def test_fast_frechet_distance_equals_cleanfid(count, dim):
    first = FeatureStatistics.of(draw(1, count, dim, shift=0.3))
    second = FeatureStatistics.of(draw(2, count + 50, dim, scale=1.5))
    expected = cleanfid.fid.frechet_distance(
        first.mean, first.covariance, second.mean, second.covariance
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-7)


def test_frechet_distance_of_diagonal_gaussians_has_the_closed_form():
    first = FeatureStatistics(mean=np.array([1.0, 0.0]), covariance=np.diag([4.0, 1.0]), count=9)
    second = FeatureStatistics(mean=np.array([0.0, 2.0]), covariance=np.diag([1.0, 9.0]), count=9)
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (1 - 3) ** 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 12))
def test_frechet_distance_is_symmetric_and_zero_on_itself(seed, count, dim):
    # Fewer vectors than dimensions make the covariance singular, which must not matter.
    first = FeatureStatistics.of(draw(seed, count, dim))
    second = FeatureStatistics.of(draw(seed + 1, count, dim, shift=0.5))
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there == pytest.approx(back, rel=1e-5, abs=1e-5)
    assert there > -1e-6
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-5)


def test_statistics_are_the_unbiased_ones():
    features = draw(3, 30, 5)
    statistics = FeatureStatistics.of(features)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(statistics.covariance, centred.T @ centred / 29, rtol=1e-10)
    np.testing.assert_allclose(
        statistics.factor @ statistics.factor.T, statistics.covariance, atol=1e-10
    )


def test_kernel_distance_of_whole_sets_is_the_unbiased_estimator():
    generated, reference = draw(4, 40, 6), draw(5, 40, 6, shift=0.4)

    def kernel(x, y):
        return float((x.astype(np.float64) @ y.astype(np.float64) / 6 + 1) ** 3)

    within = sum(
        kernel(group[i], group[j])
        for group in (generated, reference)
        for i, j in itertools.permutations(range(40), 2)
    ) / (40 * 39)
    across = np.mean([kernel(x, y) for x in generated for y in reference])
    found = kernel_distance(generated, reference, seed=0, num_subsets=1)
    assert found == pytest.approx(within - 2 * across, rel=1e-4)


def test_kernel_distance_is_seeded_and_leaves_the_global_generator_alone():
    generated, reference = draw(6, 80, 4), draw(7, 80, 4)
    np.random.seed(11)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    values = [
        kernel_distance(generated, reference, seed=seed, num_subsets=3, max_subset_size=20)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    assert values[0] == values[1] != values[2]


def test_one_subset_serves_where_every_subset_is_the_whole_set():
    generated, reference = draw(4, 40, 6), draw(5, 40, 6, shift=0.4)
    whole = kernel_distance(generated, reference, seed=0, num_subsets=1)
    assert kernel_distance(generated, reference, seed=1) == pytest.approx(whole, rel=1e-5)
    more = np.concatenate([reference, reference + 1])  # subsets of these differ
    values = {kernel_distance(generated, more, seed=0, num_subsets=n) for n in (1, 2)}
    assert len(values) == 2


def test_precision_and_recall_follow_their_definition():
    generated, reference = draw(8, 60, 3), draw(9, 70, 3, shift=0.7)

    def covered(points, centres):
        own = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        radius = np.sort(own, axis=1)[:, 3]
        return (np.linalg.norm(points[:, None] - centres[None], axis=-1) <= radius).any(1).mean()

    precision, recall = precision_recall(generated, reference, batch_size=16)
    assert precision == pytest.approx(covered(generated, reference), abs=1e-6)
    assert recall == pytest.approx(covered(reference, generated), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 100])
def test_own_distances_are_those_of_all_pairs(batch_size):
    features = draw(8, 60, 3)
    every = np.sort(np.linalg.norm(features[:, None] - features[None], axis=-1), axis=1)
    found = own_pairs(features, count=6, batch_size=batch_size)
    np.testing.assert_allclose(found.distances[:, 1:], every[:, 1:6], rtol=1e-4)
    np.testing.assert_allclose(found.distances[:, 0], 0, atol=1e-2)  # by products, so rounded
    np.testing.assert_array_equal(found.radii(4), found.distances[:, 4])
    with pytest.raises(ValueError, match="count is 61; 60 vectors allow 1 to 60"):
        own_pairs(features, count=61)


@pytest.mark.parametrize(
    ("generated_count", "reference_count", "size"), [(60, 45, 20), (45, 60, 45), (50, 50, 1000)]
)
@pytest.mark.parametrize("batch_size", [16, 100])
def test_the_kernel_distance_of_all_pairs_is_clean_fids(
    generated_count, reference_count, size, batch_size
):
    generated, reference = draw(20, generated_count, 12), draw(21, reference_count, 12, shift=0.4)
    np.random.seed(5)  # noqa: NPY002
    expected = cleanfid.fid.kernel_distance(
        reference.astype(np.float64),
        generated.astype(np.float64),
        num_subsets=7,
        max_subset_size=size,
    )
    drawing = {"seed": 5, "num_subsets": 7, "max_subset_size": size}
    subsets = KernelSubsets.draw(generated_count, reference_count, **drawing)
    options = {"batch_size": batch_size, "subsets": subsets}
    known = own_pairs(reference, count=4, members=subsets.reference, batch_size=batch_size)
    found = compare_pairs(generated, reference, **options)
    assert found[1] == pytest.approx(expected, rel=1e-5)
    assert found[1] == pytest.approx(kernel_distance(generated, reference, **drawing), rel=1e-4)
    assert compare_pairs(generated, reference, reference_pairs=known, **options)[1] == found[1]
    shares = precision_recall(generated, reference, batch_size=batch_size)
    assert (found[0].precision, found[0].recall) == shares


def test_the_kernel_distance_of_all_pairs_is_torch_fidelitys():
    generated, reference = draw(22, 90, 12), draw(23, 70, 12, shift=0.4)
    expected = kid_features_to_metric(
        torch.from_numpy(generated).double(),
        torch.from_numpy(reference).double(),
        kid_subsets=5,
        kid_subset_size=30,
        rng_seed=3,
        verbose=False,
    )
    subsets = KernelSubsets.draw(90, 70, seed=3, num_subsets=5, max_subset_size=30)
    _, found = compare_pairs(generated, reference, subsets=subsets)
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)


def test_a_collapsed_set_has_precision_without_recall():
    reference = draw(10, 200, 4)
    collapsed = reference[:1] + 1e-3 * draw(11, 200, 4)
    precision, recall = precision_recall(collapsed, reference)
    assert precision == 1.0
    assert recall < 0.05


def test_principal_components_are_the_leading_axes_of_the_reference():
    reference = draw(12, 300, 20)
    components = PrincipalComponents.fit(reference, 5)
    np.testing.assert_allclose(components.axes.T @ components.axes, np.eye(5), atol=1e-10)
    variances = components.project(reference).var(axis=0, ddof=1)
    leading = np.linalg.eigvalsh(np.cov(reference.astype(np.float64), rowvar=False))[::-1][:5]
    np.testing.assert_allclose(variances, leading, rtol=1e-4)


def test_all_components_keep_the_frechet_distance():
    generated, reference = draw(13, 100, 6), draw(14, 100, 6, shift=0.2)
    components = PrincipalComponents.fit(reference, 6)
    projected = frechet_distance(
        FeatureStatistics.of(components.project(generated)),
        FeatureStatistics.of(components.project(reference)),
    )
    assert projected == pytest.approx(frechet_score(generated, Reference(features=reference)), 1e-4)


def test_components_without_variance_are_left_out():
    varied, constant = draw(18, 40, 3), np.ones((40, 5), np.float32)
    reference = np.hstack([varied, constant])
    components = PrincipalComponents.fit(reference, 6)
    assert components.axes.shape == (8, 3)
    np.testing.assert_allclose(components.axes[3:], 0, atol=1e-12)
    strange = np.hstack([varied, constant + draw(19, 40, 5)])
    np.testing.assert_allclose(components.project(strange), components.project(reference))


def test_all_scores_name_their_features_and_drop_what_cannot_be():
    generated, features = draw(15, 30, 8), draw(16, 40, 8)
    scores = all_scores(generated, Reference(features=features, num_components=4), prefix="toy")
    assert set(scores) == {"toy_fd", "toy_kid", "toy_precision", "toy_recall", "toy_fd_pca4"}
    assert scores["toy_fd"] == frechet_score(generated, Reference(features=features))
    without = all_scores(generated, Reference(features=features), prefix="toy")
    assert "toy_fd_pca64" not in without


def test_all_scores_share_the_pairs_but_not_the_values_of_other_sets_and_seeds():
    reference = Reference(features=draw(30, 40, 8))
    for generated, seed in [(draw(31, 30, 8), 0), (draw(32, 50, 8), 0), (draw(33, 30, 8), 1)]:
        scores = all_scores(generated, reference, prefix="toy", kid_seed=seed)
        expected = kernel_distance(generated, reference.features, seed=seed)
        assert scores["toy_kid"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        shares = precision_recall(generated, reference.features)
        assert (scores["toy_precision"], scores["toy_recall"]) == shares


def test_bad_feature_sets_are_refused():
    good = draw(17, 10, 4)
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        FeatureStatistics.of(good[:1])
    with pytest.raises(ValueError, match="4 and 3 dimensions"):
        kernel_distance(good, good[:, :3], seed=0)
    with pytest.raises(ValueError, match="4 and 3 dimensions"):
        frechet_distance(FeatureStatistics.of(good), FeatureStatistics.of(good[:, :3]))
    with pytest.raises(ValueError, match="neighborhood is 10"):
        precision_recall(good, good, neighborhood=10)
    with pytest.raises(ValueError, match="num_components is 64"):
        PrincipalComponents.fit(good)


@pytest.mark.parametrize(("generated_count", "reference_count"), [(40, 40), (57, 33), (30, 61)])
def test_precision_and_recall_equal_torch_fidelitys(generated_count, reference_count):
    rng = np.random.default_rng(generated_count)
    generated = rng.normal(0.3, 1.2, (generated_count, 6)).astype(np.float32)
    reference = rng.normal(0.0, 1.0, (reference_count, 6)).astype(np.float32)
    expected = calculate_precision_recall_part(
        torch.from_numpy(generated), torch.from_numpy(reference), 3, 16
    )
    found = precision_recall(generated, reference, batch_size=16)
    assert found == pytest.approx(expected, abs=1e-6)
    pairs = own_pairs(reference, count=4, batch_size=16)
    known = precision_recall(generated, reference, batch_size=16, reference_pairs=pairs)
    assert known == found
