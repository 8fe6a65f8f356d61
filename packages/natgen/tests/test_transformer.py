"""Shapes, conditions, saving and the attention backends of the NAT."""

import json

import pytest
import torch
from natgen import NAT, NATConfig, nat_b, nat_l, nat_s, nat_text
from safetensors.torch import load_file, save_file


def tokens_of(model, batch=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.mask_token_id + 1, (batch, model.seq_len), generator=generator)


def test_class_model(class_model):
    output = class_model(tokens_of(class_model), torch.tensor([0, 3, class_model.null_class_id]))
    assert output.features.shape == (3, 12, 16)
    assert output.logits.shape == (3, 12, 16)
    assert class_model.mask_token_id == 16
    assert class_model.null_condition(2).tolist() == [5, 5]


def test_text_model(text_model):
    tokens = tokens_of(text_model)
    null = text_model.null_condition(3)
    assert null.shape == (3, 3, 6)
    with_text = text_model(tokens, torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(1)))
    assert not torch.allclose(with_text.logits, text_model(tokens, null).logits)
    with pytest.raises(RuntimeError, match="no null class"):
        _ = text_model.null_class_id


def test_null_context(text_model, class_model):
    context = torch.randn(3, 6)
    text_model.set_null_context(context)
    assert torch.equal(text_model.null_condition(2), context.expand(2, 3, 6))
    with pytest.raises(ValueError, match=r"got \(1, 3, 5\)"):
        text_model.set_null_context(torch.zeros(3, 5))
    with pytest.raises(RuntimeError, match="null class"):
        class_model.set_null_context(context)


@pytest.mark.parametrize("kind", ["class_model", "text_model"])
def test_dropout_is_on_the_tokens_alone(kind, request):
    model = request.getfixturevalue(kind)
    condition = torch.tensor([0, 3]) if kind == "class_model" else torch.randn(2, 3, 6)
    patches = torch.zeros(2, 12, 1, dtype=torch.int64)
    expected, tokens = model.condition(condition), model.token_embedding(patches)
    model.train()
    assert torch.equal(model.condition(condition), expected)
    dropped = (model.token_embedding(patches) == 0).float().mean()
    assert 0 < dropped < 0.3
    assert (tokens != 0).all()


def test_samples_do_not_see_one_another(class_model):
    tokens, labels = tokens_of(class_model), torch.tensor([1, 2, 3])
    together = class_model(tokens, labels).logits
    alone = torch.cat([class_model(tokens[i : i + 1], labels[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient(class_model):
    output = class_model(tokens_of(class_model), torch.tensor([0, 1, 2]))
    (output.logits.square().sum() + output.features.square().sum()).backward()
    for name, parameter in class_model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 6]), r"label 6 is out of range.*\[0, 4\].*5 is the null"),
        (torch.tensor([-1, 0]), "label -1"),
        (torch.tensor([[0], [1]]), r"\(2, 1\)"),
        (torch.tensor([0.0]), "float32"),
    ],
)
def test_bad_labels(class_model, labels, message):
    with pytest.raises(ValueError, match=message):
        class_model.check_condition(labels)


def test_bad_text_features(text_model):
    text_model.check_condition(torch.zeros(2, 3, 6))
    with pytest.raises(ValueError, match=r"\(B, 3, 6\), got \(2, 3, 7\)"):
        text_model.check_condition(torch.zeros(2, 3, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "even.*got 3"),
        ({"num_heads": 3}, "got 3 and 16"),
        ({"grid_size": (0, 4)}, r"got \(0, 4\)"),
        ({"patch_size": 2}, r"patch_size must divide.*got 2 and \(3, 4\)"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"codebook_size": 0}, "codebook_size must be at least 1, got 0"),
        ({"num_classes": None}, "exactly one"),
        ({"context_dim": 4}, "exactly one"),
        ({"num_context_tokens": 2}, "num_context_tokens = 1"),
        ({"dropout": 1.0}, "got 1.0"),
        ({"mlp_ratio": 0.0}, "got 0.0"),
        ({"attention": "flash"}, "got 'flash'"),
    ],
)
def test_bad_config(class_config, change, message):
    sizes = {name: getattr(class_config, name) for name in class_config.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        NATConfig(**{**sizes, **change})


@pytest.mark.parametrize("kind", ["class_model", "text_model", "patch_model"])
def test_saving_and_loading(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    model.save_pretrained(tmp_path)
    loaded = NAT.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["grid_size"] == list(model.grid_size)


@pytest.mark.parametrize("spoil", ["missing", "shape"])
def test_loading_spoilt_weights(class_model, tmp_path, spoil):
    class_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if spoil == "missing":
        del weights["head.bias"]
    else:
        weights["head.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"do not fit the NAT(.|\n)*head\.bias"):
        NAT.from_pretrained(tmp_path)


def test_loading_damaged_folders(class_model, tmp_path):
    class_model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=rf"{tmp_path.name}' .* damaged"):
        NAT.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=rf"{tmp_path.name}: config\.json is missing"):
        NAT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("preset", "millions"), [(nat_s, 46), (nat_b, 101), (nat_l, 194), (nat_text, 504)]
)
def test_preset_sizes(preset, millions):
    with torch.device("meta"):
        model = NAT(preset())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=1)
