"""Published checkpoint files: sizes from shapes, wrappers, and files that must be refused."""

import pickle
from argparse import Namespace

import pytest
import torch
from natgen import NAT, NATConfig, load_uvit
from natgen.checkpoint import _official_name
from safetensors.torch import save_file

SQUARE = {"codebook_size": 16, "grid_size": (4, 4), "embed_dim": 24, "depth": 4, "num_heads": 3}
CLASSES = NATConfig(**SQUARE, mlp_ratio=3.0, num_classes=5)
TEXT = NATConfig(**SQUARE, context_dim=6, num_context_tokens=7)


def official_weights(config):
    """Random weights under the official names and shapes, and the model they make."""
    torch.manual_seed(0)
    model = NAT(config).eval()
    weights = {_official_name(name): value for name, value in model.named_parameters()}
    bias = torch.cat([weights["mlm_layer.bias"], torch.randn(1)])
    weights = {name: value.detach().clone() for name, value in weights.items()}
    return {**weights, "mlm_layer.bias": bias.detach().view(1, 1, -1)}, model


def assert_same(loaded, model):
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), value), name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("config", [CLASSES, TEXT], ids=["class", "text"])
def test_sizes_are_read_off_the_shapes(tmp_path, suffix, config):
    weights, model = official_weights(config)
    path = tmp_path / f"nnet_ema{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    assert_same(load_uvit(path, num_heads=3, num_context_tokens=7), model)


def test_position_ids_are_ignored(tmp_path):
    """The published text checkpoint has them; the published code leaves them out, too."""
    weights, model = official_weights(TEXT)
    weights["token_emb.position_ids"] = torch.arange(16)[None]
    torch.save(weights, tmp_path / "cc3m.pth")
    assert_same(load_uvit(tmp_path / "cc3m.pth", num_heads=3, num_context_tokens=7), model)


def test_published_widths_need_no_heads(tmp_path):
    weights, model = official_weights(
        NATConfig(
            codebook_size=4, grid_size=(2, 2), embed_dim=512, depth=2, num_heads=8, num_classes=1
        )
    )
    torch.save(weights, tmp_path / "s.pth")
    assert_same(load_uvit(tmp_path / "s.pth"), model)


def wrapped(weights, wrapper):
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    return {
        "model": {"model": weights, "step": 3},
        "ema first": {"model": other, "ema": weights, "optimizer": {"state": {}}},
        "state_dict": {"state_dict": weights, "epoch": 1},
        "options": {"model": weights, "args": Namespace(lr=4e-4, betas=[0.99, 0.99])},
        "data parallel": {f"module.{name}": value for name, value in weights.items()},
        "compiled": {
            "nnet": {f"module._orig_mod.{name}": value for name, value in weights.items()}
        },
        "averaged": {
            "n_averaged": torch.tensor(3),
            **{f"module.{name}": value for name, value in weights.items()},
        },
    }[wrapper]


@pytest.mark.parametrize(
    "wrapper",
    ["model", "ema first", "state_dict", "options", "data parallel", "compiled", "averaged"],
)
def test_wrappers(tmp_path, wrapper):
    weights, model = official_weights(CLASSES)
    torch.save(wrapped(weights, wrapper), tmp_path / "checkpoint.pth")
    assert_same(load_uvit(tmp_path / "checkpoint.pth", num_heads=3), model)


def test_a_malicious_pickle_is_not_run(tmp_path):
    target = tmp_path / "run"

    class Malicious:
        def __reduce__(self):
            return target.mkdir, ()

    plain, path = tmp_path / "plain.pth", tmp_path / "zip.pth"
    plain.write_bytes(pickle.dumps({"model": Malicious()}, protocol=2))
    torch.save({"model": Malicious()}, path)
    for file in (plain, path):
        with pytest.raises(ValueError, match=rf"{file.name} holds more than tensors.*not loaded"):
            load_uvit(file)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_files_cut_off(tmp_path, suffix, share):
    weights, _ = official_weights(CLASSES)
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"cut{suffix} .*(fetch it again)"):
        load_uvit(path, num_heads=3)


def test_a_missing_file(tmp_path):
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=name):
            load_uvit(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, r"x\.pth: .*missing \['norm\.weight'\], unexpected \[\]"),
        ({"extra": torch.zeros(1)}, r"x\.pth: .*missing \[\], unexpected \['extra'\]"),
        ({"token_emb.word_embeddings.weight": None}, r"x\.pth: .*missing 'token_emb\.word"),
        ({"context_embed.word_embeddings.weight": None}, r"x\.pth: .*missing 'context_embed\.wei"),
        ({"norm.weight": torch.zeros(3)}, r"x\.pth: norm\.weight is \(3,\).*\(24,\)"),
        ({"mlm_layer.bias": torch.zeros(1, 1, 20)}, r"x\.pth: mlm_layer\.bias is \(19,\).*\(16,\)"),
        ({"mid_block.mlp.fc1.weight": torch.zeros(3)}, r"x\.pth: mid_block.*two axes"),
        (
            {"token_emb.position_embeddings.weight": torch.zeros(15, 24)},
            r"x\.pth: 15 tokens make no square grid: give grid_size",
        ),
        ({"norm.weight": 3.0}, r"x\.pth holds no state dict: \['norm\.weight'\] are no tensors"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    weights = {**official_weights(CLASSES)[0], **change}
    path = tmp_path / "x.pth"
    torch.save({name: value for name, value in weights.items() if value is not None}, path)
    with pytest.raises(ValueError, match=message):
        load_uvit(path, num_heads=3)


def test_files_without_a_state_dict(tmp_path):
    path = tmp_path / "x.pth"
    for content, message in (([1, 2], "but list"), ({}, r"but \[\]"), ({"step": 3}, "'step'")):
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"x\.pth holds no state dict.*{message}"):
            load_uvit(path)


def test_a_count_of_updates_alone(tmp_path):
    """Nothing is left of it once what an averaged model counts is taken off."""
    path = tmp_path / "x.pth"
    torch.save({"n_averaged": torch.tensor(3)}, path)
    with pytest.raises(ValueError, match=r"x\.pth: .*missing 'token_emb\.word"):
        load_uvit(path)


def test_unknown_heads(tmp_path):
    torch.save(official_weights(CLASSES)[0], tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: .*width 24 is not published: give num_heads"):
        load_uvit(tmp_path / "x.pth")
