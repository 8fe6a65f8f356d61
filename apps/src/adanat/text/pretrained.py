"""Reads what transformers stores, with errors that name the source."""

from collections.abc import Callable
from typing import TypeVar

from safetensors import SafetensorError

from adanat.errors import AdanatError

Loaded = TypeVar("Loaded")


def load_pretrained(load: Callable[..., Loaded], source: str, **options: bool) -> Loaded:
    """Read a model or tokenizer; weights only as safetensors, which hold no code.

    Args:
        load: `from_pretrained` of a class of transformers.
        source: a folder, or a name on the hub.
        options: its further arguments.

    Raises:
        AdanatError: the source cannot be read.
    """
    try:
        return load(source, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AdanatError(
            f"cannot load the text encoder {source!r}: {error}. Give a folder that transformers "
            "wrote (config.json, model.safetensors, the tokenizer's files), or a name on the hub."
        ) from error
