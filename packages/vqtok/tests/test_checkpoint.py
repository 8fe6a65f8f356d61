import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from vqtok import (
    Tokenizer,
    TokenizerConfig,
    import_llamagen,
    import_open_muse,
    import_vqgan,
    load_llamagen,
    load_open_muse,
    load_vqgan,
)

GROUPS = 4
CONFIG = TokenizerConfig(
    image_size=8,
    base_channels=8,
    channel_multipliers=(1, 2),
    codebook_size=5,
    codebook_dim=4,
    norm_groups=GROUPS,
)
LLAMAGEN_CONFIG = replace(
    CONFIG, architecture="llamagen", latent_channels=6, codebook_dim=3, normalize_codes=True
)
Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, Tensor]


# The published modules' weights and computations, written down once more from their names.


def conv_shapes(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs, size, size)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def norm_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def block_shapes(name: str, inputs: int, outputs: int, llamagen: bool = False) -> Shapes:
    shapes = {
        **norm_shapes(f"{name}.norm1", inputs),
        **conv_shapes(f"{name}.conv1", inputs, outputs, 3, llamagen),
        **norm_shapes(f"{name}.norm2", outputs),
        **conv_shapes(f"{name}.conv2", outputs, outputs, 3, llamagen),
    }
    if inputs != outputs:
        shortcut_inputs = inputs if llamagen else outputs
        shapes |= conv_shapes(f"{name}.nin_shortcut", shortcut_inputs, outputs, 1, llamagen)
    return shapes


def attention_shapes(name: str, channels: int) -> Shapes:
    shapes = norm_shapes(f"{name}.norm", channels)
    for layer in ("q", "k", "v", "proj_out"):
        shapes |= conv_shapes(f"{name}.{layer}", channels, channels, 1)
    return shapes


def maskgit_shapes(middle: tuple[str, str], upsample: str) -> Shapes:
    return {
        **conv_shapes("encoder.conv_in", 3, 8, 3, bias=False),
        **block_shapes("encoder.down.0.block.0", 8, 8),
        **block_shapes("encoder.down.1.block.0", 8, 16),
        **block_shapes(f"encoder.mid.{middle[0]}", 16, 16),
        **block_shapes(f"encoder.mid.{middle[1]}", 16, 16),
        **norm_shapes("encoder.norm_out", 16),
        **conv_shapes("encoder.conv_out", 16, 4, 1),
        **conv_shapes("decoder.conv_in", 4, 16, 3),
        **block_shapes(f"decoder.mid.{middle[0]}", 16, 16),
        **block_shapes(f"decoder.mid.{middle[1]}", 16, 16),
        **block_shapes("decoder.up.1.block.0", 16, 16),
        **conv_shapes(f"decoder.up.1.{upsample}", 16, 16, 3),
        **block_shapes("decoder.up.0.block.0", 16, 8),
        **norm_shapes("decoder.norm_out", 8),
        **conv_shapes("decoder.conv_out", 8, 3, 3),
        "quantize.embedding.weight": (5, 4),
    }


def llamagen_shapes() -> Shapes:
    shapes = {
        **conv_shapes("encoder.conv_in", 3, 8, 3),
        **block_shapes("encoder.conv_blocks.0.res.0", 8, 8, llamagen=True),
        **conv_shapes("encoder.conv_blocks.0.downsample.conv", 8, 8, 3),
        **block_shapes("encoder.conv_blocks.1.res.0", 8, 16, llamagen=True),
        **attention_shapes("encoder.conv_blocks.1.attn.0", 16),
        **norm_shapes("encoder.norm_out", 16),
        **conv_shapes("encoder.conv_out", 16, 6, 3),
        **conv_shapes("quant_conv", 6, 3, 1),
        "quantize.embedding.weight": (5, 3),
        **conv_shapes("post_quant_conv", 3, 6, 1),
        **conv_shapes("decoder.conv_in", 6, 16, 3),
        **conv_shapes("decoder.conv_blocks.0.upsample.conv", 16, 16, 3),
        **block_shapes("decoder.conv_blocks.1.res.0", 16, 8, llamagen=True),
        **block_shapes("decoder.conv_blocks.1.res.1", 8, 8, llamagen=True),
        **norm_shapes("decoder.norm_out", 8),
        **conv_shapes("decoder.conv_out", 8, 3, 3),
    }
    for index in range(2):
        shapes |= block_shapes(f"decoder.conv_blocks.0.res.{index}", 16, 16, llamagen=True)
        shapes |= attention_shapes(f"decoder.conv_blocks.0.attn.{index}", 16)
    for side in ("encoder", "decoder"):
        shapes |= block_shapes(f"{side}.mid.0", 16, 16, llamagen=True)
        shapes |= attention_shapes(f"{side}.mid.1", 16)
        shapes |= block_shapes(f"{side}.mid.2", 16, 16, llamagen=True)
    return shapes


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    grouped = x.unflatten(1, (GROUPS, -1))
    mean = grouped.mean((2, 3, 4), keepdim=True)
    variance = grouped.var((2, 3, 4), keepdim=True, correction=0)
    x = ((grouped - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
    weight, bias = (state[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
    return weight * x + bias


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def block(state: State, name: str, x: Tensor, llamagen: bool = False) -> Tensor:
    h = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)))
    h = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", h)))
    if f"{name}.nin_shortcut.weight" in state:
        x = conv(state, f"{name}.nin_shortcut", x if llamagen else h)
    return x + h


def attention(state: State, name: str, x: Tensor) -> Tensor:
    h = norm(state, f"{name}.norm", x)
    q, k, v = (conv(state, f"{name}.{layer}", h).flatten(2) for layer in "qkv")
    weights = (torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5).softmax(2)
    mixed = torch.einsum("bcj,bij->bci", v, weights).view_as(x)
    return x + conv(state, f"{name}.proj_out", mixed)


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def open_muse_latent(state: State, images: Tensor) -> Tensor:
    x = block(state, "encoder.down.0.block.0", conv(state, "encoder.conv_in", images))
    x = block(state, "encoder.down.1.block.0", F.avg_pool2d(x, 2))
    for index in range(2):
        x = block(state, f"encoder.mid.{index}", x)
    return conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)))


def open_muse_decoded(state: State, codes: Tensor) -> Tensor:
    x = conv(state, "decoder.conv_in", state["quantize.embedding.weight"][codes].movedim(3, 1))
    for name in ("mid.0", "mid.1", "up.1.block.0"):
        x = block(state, f"decoder.{name}", x)
    x = conv(state, "decoder.up.1.upsample_conv", doubled(x))
    x = block(state, "decoder.up.0.block.0", x)
    return conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)))


def llamagen_middle(state: State, side: str, x: Tensor) -> Tensor:
    x = block(state, f"{side}.mid.0", x, llamagen=True)
    x = attention(state, f"{side}.mid.1", x)
    return block(state, f"{side}.mid.2", x, llamagen=True)


def llamagen_latent(state: State, images: Tensor) -> Tensor:
    x = conv(state, "encoder.conv_in", 2 * images - 1)
    x = block(state, "encoder.conv_blocks.0.res.0", x, llamagen=True)
    down = "encoder.conv_blocks.0.downsample.conv"
    x = F.conv2d(F.pad(x, (0, 1, 0, 1)), state[f"{down}.weight"], state[f"{down}.bias"], stride=2)
    x = block(state, "encoder.conv_blocks.1.res.0", x, llamagen=True)
    x = attention(state, "encoder.conv_blocks.1.attn.0", x)
    x = llamagen_middle(state, "encoder", x)
    x = conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)))
    return conv(state, "quant_conv", x)


def llamagen_decoded(state: State, codes: Tensor) -> Tensor:
    codebook = state["quantize.embedding.weight"]
    vectors = (codebook / codebook.norm(dim=1, keepdim=True))[codes].movedim(3, 1)
    x = conv(state, "decoder.conv_in", conv(state, "post_quant_conv", vectors))
    x = llamagen_middle(state, "decoder", x)
    for index in range(2):
        x = block(state, f"decoder.conv_blocks.0.res.{index}", x, llamagen=True)
        x = attention(state, f"decoder.conv_blocks.0.attn.{index}", x)
    x = conv(state, "decoder.conv_blocks.0.upsample.conv", doubled(x))
    for index in range(2):
        x = block(state, f"decoder.conv_blocks.1.res.{index}", x, llamagen=True)
    x = conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)))
    return (x + 1) / 2


class Format(NamedTuple):
    load: Callable[[str | os.PathLike[str], TokenizerConfig], Tokenizer]
    convert: Callable[[State, TokenizerConfig], Tokenizer]
    config: TokenizerConfig
    shapes: Shapes
    ignored: str | None = None
    latent: Callable[[State, Tensor], Tensor] | None = None
    decoded: Callable[[State, Tensor], Tensor] | None = None


FORMATS = {
    "vqgan": Format(
        load_vqgan,
        import_vqgan,
        CONFIG,
        maskgit_shapes(("block_1", "block_2"), "upsample.conv"),
        ignored="loss.discriminator.main.0.weight",
    ),
    "open_muse": Format(
        load_open_muse,
        import_open_muse,
        CONFIG,
        maskgit_shapes(("0", "1"), "upsample_conv"),
        latent=open_muse_latent,
        decoded=open_muse_decoded,
    ),
    "llamagen": Format(
        load_llamagen,
        import_llamagen,
        LLAMAGEN_CONFIG,
        llamagen_shapes(),
        ignored="quantize.codebook_used",
        latent=llamagen_latent,
        decoded=llamagen_decoded,
    ),
}
SUFFIXES = ("ckpt", "pth", "pt", "bin", "safetensors")


@pytest.fixture(params=list(FORMATS))
def published(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


@pytest.fixture
def state(published: Format) -> dict[str, Tensor]:
    """Random weights under their published names."""
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) for key, shape in published.shapes.items()}


def write(state: object, file: Path) -> Path:
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    return file


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_weight_is_taken_over(published: Format, state: dict[str, Tensor]) -> None:
    tokenizer = published.convert(state, published.config)
    assert not tokenizer.training
    # The values are distinct, so equal sums over all parameters mean that each was used once.
    taken = sorted(value.sum().item() for value in tokenizer.parameters())
    codes = state.pop("quantize.embedding.weight")
    if published.config.normalize_codes:
        codes = codes / codes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(tokenizer.quantizer.codebook, codes)
    assert taken == sorted(value.sum().item() for value in state.values())


@pytest.mark.parametrize("name", ["open_muse", "llamagen"])  # tests/parity has the third
@torch.no_grad()
def test_same_numbers_as_published(name: str) -> None:
    published = FORMATS[name]
    generator = torch.Generator().manual_seed(2)
    state = {
        key: 0.3 * torch.randn(shape, generator=generator)
        for key, shape in published.shapes.items()
    }
    tokenizer = published.convert(state, published.config)
    latent = published.latent(state, IMAGES)
    torch.testing.assert_close(tokenizer.latent(IMAGES), latent, rtol=1e-4, atol=1e-5)

    codebook = state["quantize.embedding.weight"]
    if published.config.normalize_codes:
        latent = latent / latent.norm(dim=1, keepdim=True)
        codebook = codebook / codebook.norm(dim=1, keepdim=True)
    distances = (latent[:, None] - codebook[None, :, :, None, None]).square().sum(2)
    assert torch.equal(tokenizer.encode(IMAGES), distances.argmin(1))

    codes = torch.randint(0, 5, (2, 4, 4), generator=generator)
    expected = published.decoded(state, codes)
    decoded = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokenizer.decode(codes), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_what_only_training_needs_is_ignored(published: Format, state: dict[str, Tensor]) -> None:
    extra = {} if published.ignored is None else {published.ignored: torch.zeros(1)}
    published.convert({**state, **extra}, published.config)
    with pytest.raises(ValueError, match=r"unexpected keys: optimizer\.weight\."):
        published.convert({**state, "optimizer.weight": torch.zeros(1)}, published.config)


def test_all_problems_are_named(
    published: Format, state: dict[str, Tensor], tmp_path: Path
) -> None:
    del state["encoder.conv_in.weight"]
    state["encoder.extra.weight"] = torch.zeros(4, 4, 1, 1)
    state["decoder.conv_out.bias"] = torch.zeros(1)
    for suffix in ("pth", "safetensors"):
        file = write(state, tmp_path / f"wrong.{suffix}")
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            published.load(file, published.config)
        message = str(caught.value)
        assert str(file) in message
        assert "missing keys: encoder.conv_in.weight;" in message
        assert "unexpected keys: encoder.extra.weight;" in message
        assert "decoder.conv_out.bias (1,) (expected (3,))" in message


@pytest.mark.parametrize(
    ("suffix", "wrapper"),
    [
        *((suffix, None) for suffix in SUFFIXES),
        ("pt", "ema"),
        ("pt", "model"),
        ("ckpt", "state_dict"),
    ],
)
def test_files(
    published: Format, state: dict[str, Tensor], tmp_path: Path, suffix: str, wrapper: str | None
) -> None:
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    file = write(content, tmp_path / f"weights.{suffix}")
    expected = published.convert(state, published.config).encode(IMAGES)
    assert torch.equal(published.load(file, published.config).encode(IMAGES), expected)


def test_averaged_weights_are_preferred(
    published: Format, state: dict[str, Tensor], tmp_path: Path
) -> None:
    worse = {key: torch.zeros_like(value) for key, value in state.items()}
    file = write({"model": worse, "ema": state}, tmp_path / "training.pt")
    expected = published.convert(state, published.config)
    loaded = published.load(file, published.config)
    assert torch.equal(loaded.decoder.conv_in.weight, expected.decoder.conv_in.weight)


def test_export(published: Format, state: dict[str, Tensor], tmp_path: Path) -> None:
    tokenizer = published.convert(state, published.config)
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.config == published.config
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_malicious_files_are_refused(
    published: Format, state: dict[str, Tensor], tmp_path: Path, suffix: str
) -> None:
    file, trace = tmp_path / f"evil.{suffix}", tmp_path / "trace"
    torch.save({**state, "payload": Malicious(trace)}, file)
    with pytest.raises(ValueError, match=rf"evil\.{suffix} (holds more than tensors|is cut off)"):
        published.load(file, published.config)
    assert not trace.exists()


def test_training_checkpoints_with_their_options(
    published: Format, state: dict[str, Tensor], tmp_path: Path
) -> None:
    """What LlamaGen's `vq_train.py` saves; its published files keep "model" alone."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-4, betas=(0.9, 0.95))
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "discriminator": layer.state_dict(),
        "optimizer_disc": optimizer.state_dict(),
        "steps": 400_000,
        "args": Namespace(
            vq_model="VQ-16", codebook_size=16384, lr=1e-4, ema=True, vq_ckpt=None, gpu=0
        ),
    }
    file = write(content, tmp_path / "0400000.pt")
    allowed = torch.serialization.get_safe_globals()
    expected = published.convert(state, published.config).encode(IMAGES)
    assert torch.equal(published.load(file, published.config).encode(IMAGES), expected)
    assert torch.serialization.get_safe_globals() == allowed  # nothing is left open


@pytest.mark.parametrize("hidden", [Malicious, Path], ids=["malicious", "harmless"])
def test_options_hide_no_other_objects(
    published: Format, state: dict[str, Tensor], tmp_path: Path, hidden: type
) -> None:
    options = Namespace(out=hidden(tmp_path / "trace"))
    file = write({"model": state, "args": options}, tmp_path / "args.pth")
    refused = r"args\.pth holds more than tensors and plain containers \((posix|nt|pathlib)\S*\)"
    with pytest.raises(ValueError, match=refused):
        published.load(file, published.config)
    assert not (tmp_path / "trace").exists()


def test_file_errors_name_the_file(published: Format, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.pth holds a list"):
        published.load(write([1, 2], tmp_path / "list.pth"), published.config)
    with pytest.raises(ValueError, match=r"empty\.pth: .*missing keys"):
        published.load(write({}, tmp_path / "empty.pth"), published.config)
    with pytest.raises(ValueError, match=r"mixed\.pth holds other things than tensors: epoch"):
        published.load(write({"epoch": 3}, tmp_path / "mixed.pth"), published.config)
    for suffix in ("pth", "safetensors"):
        with pytest.raises(FileNotFoundError, match=rf"absent\.{suffix}"):
            published.load(tmp_path / f"absent.{suffix}", published.config)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [0, 40, 1000, -50])
def test_cut_off_files_are_named(
    published: Format, state: dict[str, Tensor], tmp_path: Path, size: int, suffix: str
) -> None:
    file = write(state, tmp_path / f"cut.{suffix}")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} is cut off or damaged, fetch it again"):
        published.load(file, published.config)


def test_configs_of_another_kind_are_refused(published: Format, state: dict[str, Tensor]) -> None:
    other = CONFIG if published.config is LLAMAGEN_CONFIG else LLAMAGEN_CONFIG
    with pytest.raises(ValueError, match=rf"the given config '{other.architecture}' and 'vq'"):
        published.convert(state, other)
    lfq = replace(
        published.config,
        quantizer="lfq",
        codebook_size=8,
        codebook_dim=3,
        normalize_codes=False,
    )
    with pytest.raises(ValueError, match="and 'lfq'"):
        published.convert(state, lfq)
