"""The NAT against the recorded numbers of the published token transformer."""

import json
from pathlib import Path

import pytest
import torch
from natgen import NAT, NATConfig, import_uvit, load_uvit
from safetensors import safe_open
from torch import Tensor


def read_case(path: Path) -> tuple[NATConfig, dict[str, Tensor], dict[str, Tensor]]:
    """Our config, the official state, and the recorded inputs and outputs."""
    with safe_open(path, "pt") as file:
        official = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    num_classes = official["num_classes"]
    config = NATConfig(
        codebook_size=official["codebook_size"],
        grid_size=(official["img_size"], official["img_size"]),
        embed_dim=official["embed_dim"],
        depth=official["depth"],
        num_heads=official["num_heads"],
        mlp_ratio=official["mlp_ratio"],
        num_classes=None if num_classes is None else num_classes - 1,  # theirs counts the null
        context_dim=official.get("clip_dim"),
        num_context_tokens=official.get("num_clip_token", 1),
    )
    prefix = "state."
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return config, state, tensors


@pytest.mark.parametrize("name", ["uvit_class", "uvit_text"])
def test_features_and_logits(reference_dir: Path, name: str) -> None:
    config, state, tensors = read_case(reference_dir / f"{name}.safetensors")
    model = import_uvit(state, config)
    condition = tensors["in.context"]
    if config.num_classes is not None:
        condition = condition.squeeze(1)
    model.check_condition(condition)
    with torch.no_grad():
        features, logits = model(tensors["in.masked_ids"], condition)
    torch.testing.assert_close(features, tensors["out.feat"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, tensors["out.logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["uvit_class", "uvit_text"])
def test_a_checkpoint_file_gives_the_same_model(
    reference_dir: Path, tmp_path: Path, name: str
) -> None:
    config, state, _ = read_case(reference_dir / f"{name}.safetensors")
    torch.save({"step": 1, "model": state}, tmp_path / "nnet_ema.pth")
    loaded = load_uvit(
        tmp_path / "nnet_ema.pth",
        num_heads=config.num_heads,
        num_context_tokens=config.num_context_tokens,
    )
    assert loaded.config == config
    expected = import_uvit(state, config)
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_special_ids(reference_dir: Path) -> None:
    path = reference_dir / "uvit_class.safetensors"
    config, _, _ = read_case(path)
    model = NAT(config)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert model.mask_token_id == int(metadata["mask_id"])
    assert model.null_class_id == int(metadata["null_class"])


def test_wrong_weights_are_named(reference_dir: Path) -> None:
    config, state, _ = read_case(reference_dir / "uvit_class.safetensors")
    extra = {**state, "surplus.weight": torch.zeros(1)}
    del extra["mid_block.norm1.weight"]
    with pytest.raises(ValueError, match=r"mid_block\.norm1\.weight.*surplus\.weight"):
        import_uvit(extra, config)
    wrong = {**state, "mid_block.mlp.fc1.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"mid_block\.mlp\.fc1\.bias is \(3,\)"):
        import_uvit(wrong, config)
