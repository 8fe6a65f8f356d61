from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from vqtok import Tokenizer, TokenizerConfig


def test_shapes_and_ranges(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    token_grid = tokenizer.encode(images)
    assert token_grid.shape == (5, 2, 2)
    assert token_grid.dtype == torch.int64
    decoded = tokenizer.decode(token_grid)
    assert decoded.shape == images.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    output = tokenizer(images)
    assert output.reconstruction.shape == images.shape
    assert output.commitment_loss.shape == ()


def test_forward_in_evaluation_is_decoding_of_encoding(
    tokenizer: Tokenizer, images: torch.Tensor
) -> None:
    output = tokenizer.eval()(images)
    token_grid = tokenizer.encode(images)
    assert torch.equal(output.token_grid, token_grid)
    torch.testing.assert_close(output.reconstruction.clamp(0, 1), tokenizer.decode(token_grid))


def test_encoding_never_changes_the_tokenizer(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.train()
    tokenizer.decode(tokenizer.encode(images))
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_encoding_does_not_depend_on_the_batch(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    whole = tokenizer.encode(images)
    single = torch.cat([tokenizer.encode(image[None]) for image in images])
    assert torch.equal(whole, single)


def test_bfloat16_images_are_accepted(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    rounded = images.bfloat16()
    assert torch.equal(tokenizer.encode(rounded), tokenizer.encode(rounded.float()))


def test_gradients_reach_every_parameter(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    output = tokenizer.train()(images)
    (output.reconstruction.square().mean() + output.commitment_loss).backward()
    missing = [name for name, value in tokenizer.named_parameters() if value.grad is None]
    assert missing == []


def test_saved_tokenizer_comes_back_equal(
    tokenizer: Tokenizer, images: torch.Tensor, tmp_path: Path
) -> None:
    tokenizer.train()(images)
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.config == tokenizer.config
    assert not loaded.training
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_missing_weights_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["decoder.conv_out.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    message = rf"{tmp_path.name}' do not fit the tokenizer(.|\n)*decoder\.conv_out\.bias"
    with pytest.raises(RuntimeError, match=message):
        Tokenizer.from_pretrained(tmp_path)


def test_damaged_folders_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=rf"{tmp_path.name}' .* damaged"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=rf"{tmp_path.name}: config\.json is missing"):
        Tokenizer.from_pretrained(tmp_path)


def test_wrong_images_are_refused(tokenizer: Tokenizer, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 12, 12\), got \(5, 1, 12, 12\)"):
        tokenizer.encode(images[:, :1])
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        tokenizer.encode((images * 255).byte())


def test_wrong_tokens_are_refused(tokenizer: Tokenizer, config: TokenizerConfig) -> None:
    with pytest.raises(ValueError, match=r"\(B, 2, 2\), got \(1, 4\)"):
        tokenizer.decode(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[0, 16\), got 0 to 16"):
        tokenizer.decode(torch.tensor([[[0, 1], [2, config.codebook_size]]]))


def decode_on(device: str, config: TokenizerConfig) -> torch.Tensor:
    with torch.device(device):
        return Tokenizer(config).decode(torch.zeros(5, 2, 2, dtype=torch.int64))


def test_decoding_on_a_gpu_never_waits_for_the_ids(config: TokenizerConfig) -> None:
    with FakeTensorMode():  # refuses to tell values, as a wait for the device would
        assert decode_on("cuda", config).shape == (5, 3, 12, 12)
        with pytest.raises(DataDependentOutputException):  # the net does catch
            decode_on("cpu", config)
