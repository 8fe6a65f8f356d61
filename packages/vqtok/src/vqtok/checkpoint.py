"""Reading the published VQGAN weights.

The published modules differ from ours in name only, so reading them is a renaming of keys. The one
thing they lack is the state of the moving averages from which our codes are computed.
"""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.config import TokenizerConfig
from vqtok.tokenizer import Tokenizer

_CODEBOOK_KEY = "quantize.embedding.weight"

# Our names to published ones, applied in this order.
_RENAMINGS = (
    (re.compile(r"^encoder\.levels\.(\d+)\.(\d+)\."), r"encoder.down.\1.block.\2."),
    (re.compile(r"^decoder\.levels\.(\d+)\.(\d+)\."), r"decoder.up.\1.block.\2."),
    (re.compile(r"\.middle\.0\."), ".mid.block_1."),
    (re.compile(r"\.middle\.1\."), ".mid.block_2."),
    (re.compile(r"\.shortcut\."), ".nin_shortcut."),
)
_UPSAMPLE = re.compile(r"^decoder\.upsamples\.(\d+)\.")


def import_vqgan(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> Tokenizer:
    """Builds a tokenizer from weights under their published names.

    Args:
        state_dict: weights of taming-transformers' ``VQModel`` without attention and without
            convolutions around the codebook, such as MAGE's f16 VQGAN. Keys of the training
            loss (``loss.*``) are ignored.
        config: the sizes; `f16_vqgan` for the published model.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        ValueError: if keys are missing or unexpected, or shapes differ from the config's.
    """
    given = {key: value for key, value in state_dict.items() if not key.startswith("loss.")}
    tokenizer = Tokenizer(config)
    parameters = {_published_name(name): value for name, value in tokenizer.named_parameters()}
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
            f"these weights are not a VQGAN of the given config: {'; '.join(problems)}. "
            "Check the config, and that the weights have no attention and no quant_conv layers"
        )

    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(given[key])
    tokenizer.quantizer.set_codebook(given[_CODEBOOK_KEY])
    return tokenizer.eval()


def load_vqgan(path: str | os.PathLike[str], config: TokenizerConfig) -> Tokenizer:
    """Reads a published checkpoint file, bare or with its weights under ``state_dict``.

    The file is read as tensors and plain containers only, so it cannot run code.

    Args:
        path: a ``.ckpt`` or ``.pth`` file.
        config: the sizes; `f16_vqgan` for the published model.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or holds other objects than tensors, or other
            weights.
    """
    path = Path(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain containers, or is damaged, and was not "
            "loaded. Fetch it again; or, if you trust it, load it yourself and pass its state dict "
            "to import_vqgan"
        ) from error
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(f"{path} is cut off or damaged, fetch it again ({error})") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    try:
        return import_vqgan(content, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _published_name(name: str) -> str:
    """The published name of one of our parameters."""
    for pattern, replacement in _RENAMINGS:
        name = pattern.sub(replacement, name)
    # Ours is indexed by the level it leads to, the published one by the level it comes from.
    return _UPSAMPLE.sub(lambda match: f"decoder.up.{int(match[1]) + 1}.upsample.", name)


def _listed(what: str, items: set[str]) -> list[str]:
    return [f"{what}: {', '.join(sorted(items))}"] if items else []
