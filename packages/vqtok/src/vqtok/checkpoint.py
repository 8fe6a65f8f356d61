"""Reading published weights, one function for each format.

The published modules differ from ours in name only, so reading them is a renaming of keys. The one
thing they lack is the state of the moving averages from which our codes are computed.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vqtok.config import Architecture, TokenizerConfig
from vqtok.quantizer import VectorQuantizer
from vqtok.tokenizer import Tokenizer
from vqtok.weights import read_state_dict

_CODEBOOK_KEY = "quantize.embedding.weight"


class _Format(NamedTuple):
    """How a published state dict differs from ours."""

    name: str
    architecture: Architecture
    renamings: tuple[tuple[str, str], ...]  # our names to published ones: patterns, in order
    ignored: tuple[str, ...] = ()  # beginnings of published keys without a use for us


_LEVELS = (
    (r"^encoder\.levels\.(\d+)\.(\d+)\.", r"encoder.down.\1.block.\2."),
    (r"^decoder\.levels\.(\d+)\.(\d+)\.", r"decoder.up.\1.block.\2."),
    # Ours is indexed by the level it leads to, the published one by the level it comes from.
    (r"^decoder\.upsamples\.(\d+)\.", r"decoder.up.\1+1.upsample."),
)
_SHORTCUT = (r"\.shortcut\.", ".nin_shortcut.")

_VQGAN = _Format(
    "VQGAN",
    "vqgan",
    (
        *_LEVELS,
        (r"\.middle\.0\.", ".mid.block_1."),
        (r"\.middle\.1\.", ".mid.block_2."),
        _SHORTCUT,
    ),
    ignored=("loss.",),
)
_OPEN_MUSE = _Format(
    "open-muse MaskGitVQGAN",
    "vqgan",
    (*_LEVELS, (r"\.upsample\.conv\.", ".upsample_conv."), (r"\.middle\.", ".mid."), _SHORTCUT),
)
_LLAMAGEN = _Format(
    "LlamaGen tokenizer",
    "llamagen",
    (
        (r"\.levels\.(\d+)\.", r".conv_blocks.\1."),
        (r"\.downsamples\.(\d+)\.", r".conv_blocks.\1.downsample."),
        (r"\.upsamples\.(\d+)\.", r".conv_blocks.\1.upsample."),
        (r"\.middle\.", ".mid."),
        _SHORTCUT,
        (r"^encoder\.quant_conv\.", "quant_conv."),
        (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
    ),
    ignored=("quantize.codebook_used",),
)


def import_vqgan(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> Tokenizer:
    """Builds a tokenizer from weights under taming-transformers' names, such as MAGE's f16 VQGAN.

    Args:
        state_dict: weights of a ``VQModel`` without attention and without convolutions around the
            codebook (``vqgan_jax_strongaug``). Keys of the training loss (``loss.*``) are ignored.
        config: the sizes; `f16_vqgan` for the published model.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        ValueError: if keys are missing or unexpected, or shapes differ from the config's.
    """
    return _import(_VQGAN, state_dict, config)


def import_open_muse(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> Tokenizer:
    """Builds a tokenizer from the weights of open-muse's ``MaskGitVQGAN``.

    Args:
        state_dict: for instance of ``openMUSE/maskgit-vqgan-imagenet-f16-256``.
        config: the sizes; `f16_vqgan` for the published model.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        ValueError: if keys are missing or unexpected, or shapes differ from the config's.
    """
    return _import(_OPEN_MUSE, state_dict, config)


def import_llamagen(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> Tokenizer:
    """Builds a tokenizer from the weights of LlamaGen's ``VQModel``.

    Args:
        state_dict: for instance of ``vq_ds16_c2i.pt``. The record of used codes is ignored.
        config: the sizes, of architecture "llamagen"; `llamagen_f16` for the published model.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        ValueError: if keys are missing or unexpected, or shapes differ from the config's.
    """
    return _import(_LLAMAGEN, state_dict, config)


def load_vqgan(path: str | os.PathLike[str], config: TokenizerConfig) -> Tokenizer:
    """Reads a file for `import_vqgan`, as `load_llamagen` does for its own format."""
    return _load(import_vqgan, path, config)


def load_open_muse(path: str | os.PathLike[str], config: TokenizerConfig) -> Tokenizer:
    """Reads a file for `import_open_muse`, as `load_llamagen` does for its own format."""
    return _load(import_open_muse, path, config)


def load_llamagen(path: str | os.PathLike[str], config: TokenizerConfig) -> Tokenizer:
    """Reads a published checkpoint file for `import_llamagen`, without running what is in it.

    Args:
        path: a ``.safetensors`` file, or a PyTorch file of any name with the weights bare or under
            ``ema``, ``model`` or ``state_dict``.
        config: the sizes.

    Returns:
        The tokenizer in evaluation mode; its ``save_pretrained`` exports it to a folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or holds other objects than tensors, or other
            weights.
    """
    return _load(import_llamagen, path, config)


def _load(
    import_weights: Callable[[Mapping[str, Tensor], TokenizerConfig], Tokenizer],
    path: str | os.PathLike[str],
    config: TokenizerConfig,
) -> Tokenizer:
    state_dict = read_state_dict(path)
    try:
        return import_weights(state_dict, config)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _import(
    published: _Format, state_dict: Mapping[str, Tensor], config: TokenizerConfig
) -> Tokenizer:
    tokenizer = Tokenizer(config)
    quantizer = tokenizer.quantizer
    if config.architecture != published.architecture or not isinstance(quantizer, VectorQuantizer):
        raise ValueError(
            f"a {published.name} has architecture {published.architecture!r} and quantizer 'vq', "
            f"the given config {config.architecture!r} and {config.quantizer!r}"
        )
    given = {
        key: value for key, value in state_dict.items() if not key.startswith(published.ignored)
    }
    parameters = {
        _published_name(published, name): value for name, value in tokenizer.named_parameters()
    }
    expected = {key: tuple(value.shape) for key, value in parameters.items()}
    expected[_CODEBOOK_KEY] = (config.codebook_size, config.codebook_dim)
    problems = [
        *_listed("missing keys", expected.keys() - given.keys()),
        *_listed("unexpected keys", given.keys() - expected.keys()),
        *_listed(
            "shapes that differ from the config",
            {
                f"{key} {tuple(given[key].shape)} (expected {shape})"
                for key, shape in expected.items()
                if key in given and tuple(given[key].shape) != shape
            },
        ),
    ]
    if problems:
        raise ValueError(
            f"these weights are not a {published.name} of the given config: {'; '.join(problems)}. "
            "Check the config, and which model the weights belong to"
        )
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(given[key])
    quantizer.set_codebook(given[_CODEBOOK_KEY])
    return tokenizer.eval()


def _published_name(published: _Format, name: str) -> str:
    """The published name of one of our parameters."""
    for pattern, replacement in published.renamings:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.(\d+)\+1\.", lambda match: f".{int(match[1]) + 1}.", name)


def _listed(what: str, items: set[str]) -> list[str]:
    return [f"{what}: {', '.join(sorted(items))}"] if items else []
