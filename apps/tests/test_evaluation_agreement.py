"""Equal to clean-fid and torch-fidelity called directly; known orders on real images."""

import cleanfid.fid
import numpy as np
import pytest
import torch
import torch_fidelity
from adanat.data import load_source
from adanat.errors import DataError
from adanat.evaluation.chunks import collect
from adanat.evaluation.extractors import (
    AdmExtractor,
    CleanExtractor,
    Lite2Extractor,
)
from adanat.evaluation.figures import METRICS, Sample
from adanat.evaluation.opening import open_images
from adanat.evaluation.processes import Processes
from adanat.evaluation.references import RealImages
from adanat.metrics import (
    FeatureStatistics,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
    nearest_neighbours,
    own_pairs,
    share_interval,
)
from PIL import Image, ImageFilter
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

CPU = torch.device("cpu")
COUNT = 200


def small_network(pixels):
    """Features (B, 48) and logits (B, 10) of float images in [0, 255], some of them clipped."""
    grid = torch.nn.functional.adaptive_avg_pool2d(pixels / 255, 4).flatten(1)
    mixing = torch.randn(48, 48, generator=torch.Generator().manual_seed(0)) / 4
    return (grid @ mixing).relu(), 4 * (grid @ mixing[:, :10])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of real images: 200 digits each, none in both."""
    digits = load_source("digits").images
    root = tmp_path_factory.mktemp("digits")
    for number, name in enumerate(("first", "second")):
        (root / name).mkdir()
        for index, image in enumerate(digits[number * COUNT : (number + 1) * COUNT]):
            Image.fromarray(image).convert("RGB").save(root / name / f"{index:04d}.png")
    return root / "first", root / "second"


def sample_of(extractor, judged, real, cache):
    """A judged folder and its reference as an evaluation sees them."""
    stores = [
        collect(
            open_images(str(folder)),
            [extractor],
            cache=cache,
            processes=Processes(),
            batch_size=32,
            chunk_size=96,
        ).stores[extractor.identity.name]
        for folder in (judged, real)
    ]
    reference = RealImages(str(real), count=None, foreign="adm")
    return Sample(
        store=stores[0], reference=reference.side(extractor.identity, stores[1]), seed=2020
    )


def test_clean_figures_are_those_of_clean_fid(folders, tmp_path):
    def network(pixels):
        return small_network(pixels)[0]

    sample = sample_of(CleanExtractor(network, device=CPU), *folders, tmp_path)
    options = {"mode": "clean", "num_workers": 0, "device": CPU, "verbose": False}
    expected = cleanfid.fid.compare_folders(*map(str, folders), network, **options)
    assert METRICS["fid"].value(sample) == pytest.approx(expected, rel=1e-4)
    features = [
        cleanfid.fid.get_folder_features(str(folder), network, **options) for folder in folders
    ]
    np.testing.assert_allclose(sample.features, features[0], atol=1e-5)
    np.random.seed(2020)  # noqa: NPY002
    expected = cleanfid.fid.kernel_distance(features[1], features[0])
    # The library sums float32 kernels, near 1, of 100 orders of the same images.
    assert METRICS["kid"].value(sample) == pytest.approx(expected, abs=1e-6)


class FidelityExtractor(FeatureExtractorBase):
    """The same features, as torch-fidelity takes them."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, pixels):
        outputs = dict(zip(("features", "logits"), small_network(pixels.float()), strict=True))
        return tuple(outputs[name] for name in self.features_list)


def test_adm_figures_are_those_of_torch_fidelity(folders, tmp_path):
    torch_fidelity.register_feature_extractor("small", FidelityExtractor)
    expected = torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        feature_extractor="small",
        fid=True,
        prc=True,
        isc=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=COUNT,
        cuda=False,
        cache=False,
        verbose=False,
    )
    extractor = AdmExtractor(lambda images: small_network(images.float()), device=CPU)
    sample = sample_of(extractor, *folders, tmp_path)
    names = ("fid-adm", "precision", "recall", "kid", "inception-score")
    found = {name: METRICS[name].value(sample) for name in names}
    assert found["fid-adm"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert found["precision"] == pytest.approx(expected["precision"], abs=1e-6)
    assert found["recall"] == pytest.approx(expected["recall"], abs=1e-6)
    # Subsets of all images leave nothing to chance; the kernel's sums, near 1, are float32.
    assert found["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], abs=2e-6)
    # Both libraries take one seeded permutation of the samples.
    assert found["inception-score"] == pytest.approx(expected["inception_score_mean"], rel=1e-5)


def test_what_too_few_images_cannot_tell_is_refused(tmp_path):
    for index in range(4):
        Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(tmp_path / f"{index}.png")
    extractor = AdmExtractor(lambda images: small_network(images.float()), device=CPU)
    sample = sample_of(extractor, tmp_path, tmp_path, tmp_path / "cache")
    assert METRICS["precision"].value(sample) == 1
    with pytest.raises(DataError, match="balls through neighbour 5 need more real images than 4"):
        METRICS["coverage"].value(sample)
    with pytest.raises(DataError, match="10 splits: 4 images are too few"):
        METRICS["inception-score"].value(sample)


def test_a_gaussian_case_is_exact():
    # Features whose sample moments are exactly those of two Gaussians of known distance.
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float32)
    unit = corners * np.sqrt(3 / 4, dtype=np.float32)  # covariance I, with the divisor N - 1
    first = FeatureStatistics.of_chunks([2 * unit[:3], 2 * unit[3:]])
    second = FeatureStatistics.of(unit * np.array([1, 3], dtype=np.float32) + 5)
    # |m1 - m2|^2 + sum of (s1 - s2)^2 for axes that agree.
    assert frechet_distance(first, second) == pytest.approx(50 + (2 - 1) ** 2 + (2 - 3) ** 2)


def test_streamed_statistics_are_those_of_the_whole():
    features = np.random.default_rng(0).normal(1e3, 1.0, (101, 7)).astype(np.float32)
    whole = FeatureStatistics.of(features)
    parts = FeatureStatistics.of_chunks(np.array_split(features, 4))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        FeatureStatistics.of_chunks([features[:1]])


def test_density_and_coverage_follow_their_definition():
    rng = np.random.default_rng(1)
    fake, real = (rng.normal(size=(n, 3)).astype(np.float32) for n in (40, 50))
    own = np.sort(np.linalg.norm(real[:, None] - real[None], axis=-1), axis=1)[:, 5]
    inside = np.linalg.norm(fake[:, None] - real[None], axis=-1) <= own
    density, coverage = density_coverage(fake, real, batch_size=16)
    assert density == pytest.approx(inside.sum() / (5 * 40))
    assert coverage == pytest.approx(inside.any(axis=0).mean())
    known = own_pairs(real, count=6)
    assert density_coverage(fake, real, reference_pairs=known) == (density, coverage)
    with pytest.raises(ValueError, match="neighborhood is 50"):
        density_coverage(real, real, neighborhood=50)


def test_nearest_neighbours_are_the_nearest():
    rng = np.random.default_rng(2)
    queries, vectors = (rng.normal(size=(n, 4)).astype(np.float32) for n in (9, 30))
    distances, indices = nearest_neighbours(queries, vectors, count=3, batch_size=4)
    every = np.linalg.norm(queries[:, None] - vectors[None], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(every, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :3], rtol=1e-5)
    with pytest.raises(ValueError, match="count is 31"):
        nearest_neighbours(queries, vectors, count=31)


def test_intervals_by_resampling_have_their_coverage():
    # The truth is known: the share is 0.7, and the kernel distance of sets that far apart is that
    # of very large sets. A 95 % interval holds it about 95 times in 100.
    rng = np.random.default_rng(3)
    shift = np.float32(0.6)
    large = [rng.normal(size=(4000, 4)).astype(np.float32) for _ in range(2)]
    truth = kernel_distance(large[0] + shift, large[1], seed=0, num_subsets=30)
    shares = distances = 0
    for trial in range(60):
        inside = rng.random(200) < 0.7
        interval = share_interval(inside, seed=trial)
        shares += interval.low <= 0.7 <= interval.high
        fake, real = (rng.normal(size=(150, 4)).astype(np.float32) for _ in range(2))
        fake += shift
        value = kernel_distance(fake, real, seed=0, num_subsets=1)
        found = kernel_distance_interval(fake, real, value=value, seed=trial, num_resamples=200)
        distances += found.low <= truth <= found.high
    assert shares >= 51
    assert distances >= 51


@pytest.fixture(scope="module")
def lite2():
    return Lite2Extractor(input_size=32, device=CPU)


@pytest.fixture(scope="module")
def orders(tmp_path_factory, lite2):
    """Scores of real, blurred, noisy and class-poor digits against other real digits."""
    digits = load_source("digits")
    root = tmp_path_factory.mktemp("orders")
    rng = np.random.default_rng(4)

    def enlarged(image):
        return Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")

    def noisy(image):
        pixels = np.asarray(enlarged(image)) + rng.normal(0, 60, (32, 32, 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    few = digits.images[400:][np.isin(digits.labels[400:], (0, 1))][:COUNT]
    fresh = digits.images[400 : 400 + COUNT]
    sets = {
        "reference": [enlarged(image) for image in digits.images[:400]],
        "real": [enlarged(image) for image in fresh],
        "blurred": [enlarged(i).filter(ImageFilter.GaussianBlur(4)) for i in fresh],
        "noisy": [noisy(image) for image in fresh],
        "two classes": [enlarged(image) for image in few],
    }
    for name, images in sets.items():
        (root / name).mkdir()
        for index, image in enumerate(images):
            image.save(root / name / f"{index:04d}.png")
    names = ("lite2", "lite2-kid", "precision", "recall", "density", "coverage")
    scores = {}
    for name in sets:
        sample = sample_of(lite2, root / name, root / "reference", root / "cache")
        scores[name] = {metric: METRICS[metric].value(sample) for metric in names}
    return scores


def test_real_against_real_is_near_the_floor(orders):
    assert abs(orders["real"]["lite2-kid"]) < 0.1 * orders["blurred"]["lite2-kid"]
    assert orders["real"]["precision"] > 0.5
    assert orders["real"]["recall"] > 0.5


@pytest.mark.parametrize("damage", ["blurred", "noisy", "two classes"])
def test_damage_raises_both_distances(orders, damage):
    for metric in ("lite2", "lite2-kid"):
        assert orders[damage][metric] > 1.5 * abs(orders["real"][metric])


def test_noise_lowers_precision_and_density(orders):
    for metric in ("precision", "density"):
        assert orders["noisy"][metric] < 0.6 * orders["real"][metric]


@pytest.mark.parametrize("loss", ["blurred", "two classes"])
def test_lost_detail_and_dropped_classes_lower_recall_and_coverage(orders, loss):
    for metric in ("recall", "coverage"):
        assert orders[loss][metric] < 0.75 * orders["real"][metric]
    assert orders[loss]["precision"] > 0.8 * orders["real"]["precision"]
