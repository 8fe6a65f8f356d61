"""The tokenizers that a user can name: trained here, saved, or published."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from vqtok import (
    Tokenizer,
    TokenizerConfig,
    f16_vqgan,
    llamagen_f16,
    load_llamagen,
    load_open_muse,
    load_vqgan,
)

from adanat.errors import DataError
from adanat.run import load_model
from adanat.run_folder import RunFolder

_PUBLISHED: Mapping[
    str, tuple[Callable[[str, TokenizerConfig], Tokenizer], Callable[[], TokenizerConfig]]
] = MappingProxyType(
    {
        "vqgan": (load_vqgan, f16_vqgan),
        "open-muse": (load_open_muse, f16_vqgan),
        "llamagen": (load_llamagen, llamagen_f16),
    }
)


def load_tokenizer(where: str, device: torch.device) -> Tokenizer:
    """A tokenizer in evaluation mode, frozen.

    Args:
        where: A run folder, a saved pipeline, a folder that `Tokenizer.save_pretrained` wrote, or
            a published checkpoint for images of 256 pixels as FORMAT:FILE, with the format
            `vqgan`, `open-muse` or `llamagen`.
        device: Where it runs.

    Raises:
        DataError: There is no tokenizer.
        StageError: Its folder is damaged.
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint is damaged or holds other weights.
    """
    name, _, file = where.partition(":")
    if name in _PUBLISHED and file:
        load, config = _PUBLISHED[name]
        tokenizer = load(file, config())
    else:
        tokenizer = load_model(Tokenizer.from_pretrained, _model_folder(Path(where)))
    return tokenizer.to(device).eval().requires_grad_(False)


def _model_folder(root: Path) -> Path:
    """Where a run, a pipeline or `save_pretrained` keeps the weights."""
    for folder in (RunFolder(root).tokenizer_model, root / "tokenizer", root):
        if (folder / "model.safetensors").is_file():
            return folder
    raise DataError(
        f"{root} holds no tokenizer: name a run folder whose tokenizer is trained, a saved "
        f"pipeline, a folder with model.safetensors, or {', '.join(_PUBLISHED)} and a file, such "
        "as llamagen:vq_ds16_c2i.pt"
    )
