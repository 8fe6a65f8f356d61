from argparse import Namespace
from pathlib import Path

import pytest
import torch
from vqtok import TokenizerConfig, import_vqgan, load_vqgan

CONFIG = TokenizerConfig(
    image_size=8,
    base_channels=8,
    channel_multipliers=(1, 2),
    codebook_size=5,
    codebook_dim=4,
    norm_groups=4,
)


def block(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.norm1.weight": (inputs,),
        f"{name}.norm1.bias": (inputs,),
        f"{name}.conv1.weight": (outputs, inputs, 3, 3),
        f"{name}.norm2.weight": (outputs,),
        f"{name}.norm2.bias": (outputs,),
        f"{name}.conv2.weight": (outputs, outputs, 3, 3),
    }
    if inputs != outputs:
        shapes[f"{name}.nin_shortcut.weight"] = (outputs, outputs, 1, 1)
    return shapes


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    """Random weights under the names of taming-transformers."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv_in.weight": (8, 3, 3, 3),
        **block("encoder.down.0.block.0", 8, 8),
        **block("encoder.down.1.block.0", 8, 16),
        **block("encoder.mid.block_1", 16, 16),
        **block("encoder.mid.block_2", 16, 16),
        "encoder.norm_out.weight": (16,),
        "encoder.norm_out.bias": (16,),
        "encoder.conv_out.weight": (4, 16, 1, 1),
        "encoder.conv_out.bias": (4,),
        "decoder.conv_in.weight": (16, 4, 3, 3),
        "decoder.conv_in.bias": (16,),
        **block("decoder.mid.block_1", 16, 16),
        **block("decoder.mid.block_2", 16, 16),
        **block("decoder.up.1.block.0", 16, 16),
        "decoder.up.1.upsample.conv.weight": (16, 16, 3, 3),
        "decoder.up.1.upsample.conv.bias": (16,),
        **block("decoder.up.0.block.0", 16, 8),
        "decoder.norm_out.weight": (8,),
        "decoder.norm_out.bias": (8,),
        "decoder.conv_out.weight": (3, 8, 3, 3),
        "decoder.conv_out.bias": (3,),
        "quantize.embedding.weight": (5, 4),
    }
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_every_weight_is_taken_over(published: dict[str, torch.Tensor]) -> None:
    tokenizer = import_vqgan(published, CONFIG)
    assert not tokenizer.training
    assert torch.equal(tokenizer.quantizer.codebook, published["quantize.embedding.weight"])
    # The values are distinct, so equal sums over all parameters mean that each was used once.
    taken = sorted(value.sum().item() for value in tokenizer.parameters())
    del published["quantize.embedding.weight"]
    assert taken == sorted(value.sum().item() for value in published.values())
    upsample = tokenizer.decoder.upsamples[0].conv.weight
    assert torch.equal(upsample, published["decoder.up.1.upsample.conv.weight"])


def test_discriminator_weights_are_ignored(published: dict[str, torch.Tensor]) -> None:
    import_vqgan({**published, "loss.discriminator.weight": torch.zeros(1)}, CONFIG)


def test_all_problems_are_named(published: dict[str, torch.Tensor]) -> None:
    del published["encoder.conv_in.weight"]
    published["quant_conv.weight"] = torch.zeros(4, 4, 1, 1)
    published["decoder.conv_out.bias"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        import_vqgan(published, CONFIG)
    message = str(caught.value)
    assert "missing keys: encoder.conv_in.weight;" in message
    assert "unexpected keys: quant_conv.weight;" in message
    assert "decoder.conv_out.bias (1,) (expected (3,))" in message


@pytest.mark.parametrize("wrapped", [True, False])
def test_files(published: dict[str, torch.Tensor], tmp_path: Path, wrapped: bool) -> None:
    file = tmp_path / "vqgan.ckpt"
    torch.save({"state_dict": published, "epoch": 3} if wrapped else published, file)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = import_vqgan(published, CONFIG).encode(images)
    assert torch.equal(load_vqgan(file, CONFIG).encode(images), expected)


def test_files_with_other_objects_are_not_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "args.pth"
    torch.save({"state_dict": {}, "args": Namespace(lr=1)}, file)
    with pytest.raises(ValueError, match=r"args\.pth holds more than tensors"):
        load_vqgan(file, CONFIG)


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds a list"):
        load_vqgan(tmp_path / "list.pth", CONFIG)
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"empty\.pth: .*missing keys"):
        load_vqgan(tmp_path / "empty.pth", CONFIG)


@pytest.mark.parametrize("size", [0, 40, 1000])
def test_cut_off_files_are_named(
    published: dict[str, torch.Tensor], tmp_path: Path, size: int
) -> None:
    file = tmp_path / "cut.pth"
    torch.save(published, file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cut\.pth is cut off or damaged, fetch it again"):
        load_vqgan(file, CONFIG)
