"""Resize modes, value ranges and weights of the protocols, with Inception networks of no worth."""

import hashlib
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from adanat.errors import DataError, StorageError
from adanat.evaluation import weights
from adanat.evaluation.extractors import (
    FEATURES,
    LOGITS,
    AdmExtractor,
    CleanExtractor,
    Identity,
    Lite2Extractor,
    adm_inception,
)
from adanat.evaluation.references import load_statistics, save_statistics
from adanat.evaluation.sources import Item
from adanat.evaluation.weights import CLEAN_INCEPTION, fetch_weights
from adanat.metrics import FeatureStatistics, to_uint8
from cleanfid.resize import make_resizer

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
ITEMS = [Item(image) for image in IMAGES]


class Layers(torch.nn.Module):
    """Stands for the published TorchScript: a fixed projection of what it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)).repeat(1, 683)[:, :2048]


class Script(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def clean_weights(tmp_path, monkeypatch):
    path = tmp_path / CLEAN_INCEPTION.name
    torch.jit.script(Script()).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = replace(CLEAN_INCEPTION, sha256=digest)
    monkeypatch.setattr("adanat.evaluation.extractors.CLEAN_INCEPTION", file)
    return tmp_path


def test_clean_resizes_in_floating_point_and_maps_to_the_published_range(clean_weights):
    found = CleanExtractor.load(clean_weights, device=CPU)(ITEMS)[FEATURES]
    resize = make_resizer("PIL", False, "bicubic", (299, 299))
    pixels = np.stack([resize(image) for image in IMAGES])
    assert pixels.dtype == np.float32
    assert (pixels != pixels.round()).any()  # a quantizing resize would differ
    expected = np.tile(((pixels - 128) / 128).mean(axis=(1, 2)), 683)[:, :2048]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """torch-fidelity's network with initial weights, saved as its publisher saves them."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(network, "load_state_dict", lambda *_: None)
        torch.save(network("random", ["2048"]).state_dict(), path)
    return path


def test_adm_is_torch_fidelity_s_port_on_uint8_images_of_any_sizes(random_inception):
    network = adm_inception(random_inception)
    seen = []

    def watch(images):
        seen.append((images.dtype, images.shape))
        return network(images)

    mixed = [ITEMS[0], Item(IMAGES[1][:16, :16])]
    found = AdmExtractor(watch, device=CPU)(mixed)
    assert {dtype for dtype, _ in seen} == {torch.uint8}
    assert found[FEATURES].shape == (2, 2048)
    assert found[LOGITS].shape == (2, 1008)
    for index, item in enumerate(mixed):
        features, logits = network(torch.from_numpy(item.image.transpose(2, 0, 1)[None].copy()))
        np.testing.assert_allclose(found[FEATURES][index], features[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[LOGITS][index], logits[0], rtol=1e-3, atol=1e-4)


def test_adm_logits_have_no_bias(random_inception):
    network = adm_inception(random_inception)
    pixels = torch.from_numpy(IMAGES[:1].transpose(0, 3, 1, 2).copy())
    features, logits = network(pixels)
    torch.testing.assert_close(logits, features @ network.fc.weight.T)


def test_lite2_keeps_the_order_of_mixed_sizes():
    extractor = Lite2Extractor(input_size=32, device=CPU)
    mixed = [ITEMS[0], Item(IMAGES[1][:16, :16]), ITEMS[2]]
    together = extractor(mixed)[FEATURES]
    for index, item in enumerate(mixed):
        np.testing.assert_allclose(extractor([item])[FEATURES][0], together[index], atol=1e-4)
    assert "32 px" in extractor.identity.resize


def test_generated_images_are_rounded_as_saved_ones():
    floats = torch.tensor([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.2])
    assert to_uint8(floats).tolist() == [0, 0, 0, 1, 255, 255]


def test_without_network_the_error_says_which_file_to_put_where(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(StorageError, match="no route to host") as caught:
        fetch_weights(CLEAN_INCEPTION, tmp_path)
    for part in (CLEAN_INCEPTION.url, CLEAN_INCEPTION.sha256, str(tmp_path / CLEAN_INCEPTION.name)):
        assert part in str(caught.value)


def test_weights_of_other_content_are_refused(tmp_path):
    (tmp_path / CLEAN_INCEPTION.name).write_bytes(b"something else")
    with pytest.raises(StorageError, match="the published file f58cb9b6"):
        fetch_weights(CLEAN_INCEPTION, tmp_path)


def fetch(url, sha256, folder, queue):
    file = weights.WeightFile(name="weights.bin", url=url, sha256=sha256)
    queue.put(fetch_weights(file, folder).read_bytes())


def test_several_processes_download_once_and_whole(tmp_path):
    content = np.random.default_rng(2).bytes(300_000)
    origin = tmp_path / "origin.bin"
    origin.write_bytes(content)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (origin.as_uri(), hashlib.sha256(content).hexdigest(), tmp_path / "cache", queue)
    workers = [context.Process(target=fetch, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [content] * 3
    for worker in workers:
        worker.join()
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == [".weights.bin.lock", "weights.bin"]


def test_a_damaged_download_is_not_kept(tmp_path):
    origin = tmp_path / "origin.bin"
    origin.write_bytes(b"cut off")
    file = weights.WeightFile(name="w.bin", url=origin.as_uri(), sha256="0" * 64)
    with pytest.raises(StorageError, match="invalid hash"):
        fetch_weights(file, tmp_path / "cache")
    assert not (tmp_path / "cache" / "w.bin").exists()


STATISTICS = FeatureStatistics.of(np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32))
MINE = Identity(name="adm", network="some", resize="299 px")


def test_statistics_are_read_back_with_their_record(tmp_path):
    path = tmp_path / "reference.npz"
    save_statistics(path, STATISTICS, MINE)
    found = load_statistics(path, MINE, foreign="adm")
    np.testing.assert_array_equal(found.mean, STATISTICS.mean)
    np.testing.assert_array_equal(found.covariance, STATISTICS.covariance)
    assert found.count == 20
    with pytest.raises(DataError, match="resize: the file has '299 px', the samples have '64 px'"):
        load_statistics(path, replace(MINE, resize="64 px"), foreign="adm")


def test_statistics_of_others_need_to_be_of_the_protocol_named(tmp_path):
    path = tmp_path / "VIRTUAL_imagenet256.npz"
    np.savez(path, mu=STATISTICS.mean, sigma=STATISTICS.covariance)
    assert load_statistics(path, MINE, foreign="adm").count == 0
    with pytest.raises(DataError, match="--statistics-protocol"):
        load_statistics(path, replace(MINE, name="clean"), foreign="adm")
    np.savez(path, mu=STATISTICS.mean, sigma=STATISTICS.covariance[:2])
    with pytest.raises(DataError, match="sigma of shape"):
        load_statistics(path, MINE, foreign="adm")
    for damage in (b"", path.read_bytes()[:200]):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="cannot read mu and sigma"):
            load_statistics(path, MINE, foreign="adm")
