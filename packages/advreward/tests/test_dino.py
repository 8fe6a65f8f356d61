from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from advreward import Discriminator, DiscriminatorConfig, FrozenViT, dino_vit_s16
from safetensors.torch import save_file
from timm.models import VisionTransformer


def tiny(**kwargs: object) -> VisionTransformer:
    torch.manual_seed(0)
    options = {"depth": 4, "embed_dim": 24, "num_heads": 2, "num_classes": 0, **kwargs}
    return VisionTransformer(img_size=32, patch_size=8, dynamic_img_size=True, **options)


@pytest.fixture(scope="module")
def vit() -> FrozenViT:
    return FrozenViT(tiny(), input_size=32, blocks=(0, 2))


def test_taps_equal_timms_intermediates_plus_class_token(vit: FrozenViT) -> None:
    images = torch.rand(3, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        expected = vit.network.forward_intermediates(
            pixels, indices=[0, 2], return_prefix_tokens=True, intermediates_only=True
        )
        features = vit(images)
        pooled = vit.network.forward_head(vit.network.forward_features(pixels))
        torch.testing.assert_close(vit.pooled(images), pooled, atol=1e-5, rtol=1e-5)
    assert list(features) == ["patches", "block0", "block2"]
    for name, (grid, prefix) in zip(("block0", "block2"), expected, strict=True):
        torch.testing.assert_close(
            features[name], grid + prefix[:, 0, :, None, None], atol=1e-5, rtol=1e-5
        )
    assert vit.channels == {name: x.shape[1] for name, x in features.items()}


def test_the_fifth_map_is_the_embedded_patches(vit: FrozenViT) -> None:
    image = torch.full((1, 3, 32, 32), 0.3)
    with torch.inference_mode():
        patches = vit(image)["patches"]
    position = vit.network.pos_embed
    # A flat image has the same patch everywhere: what differs between positions is the position.
    difference = patches.flatten(2)[0, :, 5] - patches.flatten(2)[0, :, 0]
    torch.testing.assert_close(difference, position[0, 6] - position[0, 1], atol=1e-5, rtol=1e-5)


def test_frozen_and_blind_to_neighbours(vit: FrozenViT) -> None:
    parent = torch.nn.ModuleList([vit]).train()
    assert parent.training
    assert not vit.training
    assert not any(parameter.requires_grad for parameter in vit.parameters())
    images = torch.rand(4, 3, 20, 20)
    with torch.inference_mode():
        together, alone = vit(images), vit(images[2:3])
    for name, x in alone.items():
        torch.testing.assert_close(together[name][2:3], x, atol=1e-5, rtol=1e-5)


def test_blocks_past_the_last_tap_are_not_run() -> None:
    vit = FrozenViT(tiny(), input_size=16, blocks=(1,))
    vit.network.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail("must not run"))
    assert vit(torch.rand(1, 3, 16, 16))["block1"].shape == (1, 24, 2, 2)


def test_a_discriminator_reads_it(vit: FrozenViT) -> None:
    config = DiscriminatorConfig(channels=vit.channels, num_classes=2, logit_size=2)
    logits = Discriminator(config)(vit(torch.rand(2, 3, 32, 32)), torch.tensor([0, 1]))
    assert logits.shape == (2, 3 * 4)


def test_dino_small_from_a_folder_or_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_224.dino", pretrained=False, num_classes=0)
    state = network.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "dino.pth")
    images = torch.rand(1, 3, 32, 32)
    folder, file = (
        dino_vit_s16(tmp_path, input_size=32),
        dino_vit_s16(tmp_path / "dino.pth", input_size=32),
    )
    assert set(folder.channels.values()) == {384}
    assert list(folder.channels) == ["patches", "block2", "block5", "block8", "block11"]
    with torch.inference_mode():
        for name, x in folder(images).items():
            assert torch.equal(x, file(images)[name]), name
    assert torch.equal(folder.network.cls_token, state["cls_token"])


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"cls_token": torch.zeros(1, 1, 8), "head": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError,
        match=r"missing: .*unexpected: head; of another shape: cls_token \(1, 1, 8\) for",
    ):
        dino_vit_s16(path)
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors or pytorch_model.bin in"):
        dino_vit_s16(tmp_path / "..", input_size=32)
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cut off, damaged"):
        dino_vit_s16(path)


@pytest.mark.parametrize(
    ("network", "kwargs", "message"),
    [
        ({}, {"blocks": (2, 0)}, r"ascending in \[0, 4\), got \(2, 0\)"),
        ({}, {"blocks": (4,)}, r"got \(4,\)"),
        ({}, {"blocks": ()}, "blocks"),
        ({}, {"input_size": 20}, "multiple of the patch size 8, got 20"),
        ({"reg_tokens": 2}, {}, "one class token, it has 3"),
    ],
)
def test_refuses_what_it_cannot_serve(
    network: dict[str, object], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenViT(tiny(**network), **{"input_size": 32, "blocks": (0,), **kwargs})
