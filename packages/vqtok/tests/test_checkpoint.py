"""What holds for weights of every published format.

Their networks are computed once more in tests/parity (vqgan), test_open_muse and test_llamagen.
"""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from published_tokenizers import (
    CONFIG,
    IMAGES,
    LLAMAGEN_CONFIG,
    LLAMAGEN_SHAPES,
    OPEN_MUSE_SHAPES,
    VQGAN_SHAPES,
    Shapes,
    State,
    random_weights,
)
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


class Format(NamedTuple):
    load: Callable[[str | os.PathLike[str], TokenizerConfig], Tokenizer]
    convert: Callable[[State, TokenizerConfig], Tokenizer]
    config: TokenizerConfig
    shapes: Shapes
    ignored: str | None = None


FORMATS = {
    "vqgan": Format(
        load_vqgan,
        import_vqgan,
        CONFIG,
        VQGAN_SHAPES,
        ignored="loss.discriminator.main.0.weight",
    ),
    "open_muse": Format(load_open_muse, import_open_muse, CONFIG, OPEN_MUSE_SHAPES),
    "llamagen": Format(
        load_llamagen,
        import_llamagen,
        LLAMAGEN_CONFIG,
        LLAMAGEN_SHAPES,
        ignored="quantize.codebook_used",
    ),
}
SUFFIXES = ("ckpt", "pth", "pt", "bin", "safetensors")


@pytest.fixture(params=list(FORMATS))
def published(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


@pytest.fixture
def state(published: Format) -> dict[str, Tensor]:
    return random_weights(published.shapes, seed=0)


def write(state: object, file: Path) -> Path:
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    return file


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
    allowed = set(torch.serialization.get_safe_globals())
    expected = published.convert(state, published.config).encode(IMAGES)
    assert torch.equal(published.load(file, published.config).encode(IMAGES), expected)
    assert set(torch.serialization.get_safe_globals()) == allowed  # nothing is left open


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
