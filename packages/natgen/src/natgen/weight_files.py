"""Reading foreign weight files without running what is in them."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Names under which training scripts keep weights, the averaged ones first.
_WRAPPERS = ("ema", "model_ema", "nnet_ema", "ema_state_dict", "state_dict", "model", "nnet")
# Data-parallel and averaged models, compiled ones.
_PREFIXES = ("module.", "_orig_mod.")
# Training scripts keep their options beside the weights. Such an object has attributes and no code;
# it is read as one of the standard library's plain ones.
_OPTIONS = (SimpleNamespace, "argparse.Namespace")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file, or from a pickled one without unpickling code.

    A state dict inside a dict of a training script is found under "ema", "model_ema", "nnet_ema",
    "ema_state_dict", "state_dict", "model" or "nnet", in this order. The prefixes "module." and
    "_orig_mod." are taken off where all names have them.

    Args:
        path: read as safetensors if so named, else as torch's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: it is damaged or cut off, holds other objects than tensors,
            plain containers and options of a command line (`argparse.Namespace`; it is not
            unpickled then), or no state dict.
    """
    path = Path(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    weights = _unwrap(content)
    if not isinstance(weights, Mapping) or not weights:
        found = (
            sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        )
        raise ValueError(f"{path} holds no state dict, but {found}")
    wrong = sorted(str(name) for name, value in weights.items() if not isinstance(value, Tensor))
    if wrong:
        raise ValueError(f"{path} holds no state dict: {wrong} are no tensors")
    return _without_prefixes({str(name): value for name, value in weights.items()})


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or is cut off; fetch it again ({error})"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([_OPTIONS]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds more than tensors and plain containers"
            f"{f' ({refused[1]})' if refused else ''}, or is damaged, and was not loaded; fetch it "
            "again, or, if you trust it, load it yourself and pass its state dict to import_uvit"
        ) from error
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(f"{path} is cut off or damaged; fetch it again ({error})") from error
    return content


def _unwrap(content: object) -> object:
    if isinstance(content, Mapping):
        for name in _WRAPPERS:
            if isinstance(content.get(name), Mapping):
                return content[name]
    return content


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    weights.pop("n_averaged", None)  # torch's AveragedModel counts its updates beside the weights
    while weights and (
        prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in weights)), None)
    ):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
