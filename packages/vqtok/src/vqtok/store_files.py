"""The files of a token store: where they lie, how they are opened, what fits into them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
MappedArray = np.memmap[Any, np.dtype[Any]]

HEADER = "store.json"


def read_header(path: Path) -> dict[str, Any]:
    """What `HEADER` says; raises FileNotFoundError where there is none."""
    file = path / HEADER
    if not file.is_file():
        raise FileNotFoundError(f"no token store in {path}: {HEADER} is missing")
    header: dict[str, Any] = json.loads(file.read_text())
    return header


def layout(
    path: Path, description: Mapping[str, Any]
) -> dict[str, tuple[Path, str, tuple[int, ...]]]:
    """File, dtype and shape of every array of a store, by key."""
    num_items = description["num_items"]
    shapes = {"tokens": ("uint16", tuple(description["grid_size"]))}
    for name, spec in description["conditions"].items():
        shapes[condition_key(name)] = (spec["dtype"], tuple(spec["shape"]))
    return {
        key: (path / f"{key}.npy", dtype, (num_items, *shape))
        for key, (dtype, shape) in shapes.items()
    }


def condition_key(name: str) -> str:
    """The key of a condition's array."""
    return f"condition_{name}"


def new_array(file: Path, dtype: str, shape: tuple[int, ...]) -> MappedArray:
    """Maps a new array of zeros for writing, with its room on the disk taken.

    Raises:
        OSError: if the disk has no room for it.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
    _reserve(file)
    return array


def reopen_array(file: Path, dtype: str, shape: tuple[int, ...]) -> MappedArray:
    """Maps an array to go on writing; raises as `open_array` and `new_array`."""
    open_array(file, dtype, shape)  # or a file that is cut off would be filled up with zeros
    array = np.lib.format.open_memmap(file, mode="r+")
    _reserve(file)
    return array


def open_array(file: Path, dtype: str, shape: tuple[int, ...]) -> Array:
    """Maps an array for reading.

    Raises:
        ValueError: if the file is damaged, or holds another type or shape.
    """
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{file} is cut off or damaged, write the store anew ({error})") from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(
            f"{file} holds {array.dtype} of shape {array.shape}, "
            f"but {HEADER} says {dtype} of shape {shape}"
        )
    return array


def check_fits(name: str, values: Array, dtype: np.dtype[Any]) -> None:
    """Refuses what storing as integers would round or wrap around."""
    if not np.issubdtype(dtype, np.integer) or not values.size:
        return
    if values.dtype.kind not in "iub":
        raise ValueError(f"{name} is stored as {dtype}, got {values.dtype}")
    bounds = np.iinfo(dtype)
    low, high = int(values.min()), int(values.max())
    if low < bounds.min or high > bounds.max:
        raise ValueError(
            f"{name} is stored as {dtype}, in [{bounds.min}, {bounds.max}], got {low} to {high}"
        )


def to_array(values: Tensor) -> Array:
    """A tensor's numbers, exactly, on the host."""
    exact = values.float() if values.dtype == torch.bfloat16 else values  # which NumPy lacks
    array: Array = exact.detach().cpu().numpy()
    return array


def to_tensor(values: Array) -> Tensor:
    """Integers as int64, other numbers in their own type."""
    if np.issubdtype(values.dtype, np.integer):
        values = values.astype(np.int64)
    return torch.from_numpy(values)


def _reserve(file: Path) -> None:
    """Takes a file's whole room: writing to a mapped hole on a full disk would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = file.stat().st_size
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot reserve {size} bytes for {file}: {error.strerror}"
            ) from error
