"""Reading weight files without running what is in them."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Where published training checkpoints keep the weights, the best first.
_WRAPPERS = ("ema", "model", "state_dict")
# Training scripts, LlamaGen's among them, keep their options beside the weights. Such an object has
# attributes and no code; it is read as one of the standard library's plain ones.
_OPTIONS = (SimpleNamespace, "argparse.Namespace")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a state dict, bare or under ``ema``, ``model`` or ``state_dict`` (the first found).

    Files are read as tensors, plain containers and options of a command line (`argparse.Namespace`)
    only, so they cannot run code.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote under any other name
            (``.pt``, ``.pth``, ``.ckpt``, ``.bin``).

    Returns:
        The tensors by name, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or holds other things than tensors by name.
    """
    path = Path(path)
    content = _read(path)
    if isinstance(content, Mapping):
        for name in _WRAPPERS:
            if isinstance(content.get(name), Mapping):
                content = content[name]
                break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} holds other things than tensors: {', '.join(sorted(others))}")
    return {str(key): value for key, value in content.items()}


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([_OPTIONS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds more than tensors and plain containers"
            f"{f' ({refused[1]})' if refused else ''}, or is damaged, and was not loaded. Fetch it "
            "again; or, if you trust it, load it yourself and pass its state dict to the import "
            "function"
        ) from error
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(f"{path} is cut off or damaged, fetch it again ({error})") from error
