"""Token grids and their conditions on disk, memory-mapped and addressed by index.

A store is a folder: ``tokens.npy`` (N, h, w) uint16, one ``condition_<name>.npy`` per condition,
and ``store.json``, which describes them, counts the items written and says whether all are there.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vqtok.store_files import (
    HEADER,
    check_fits,
    condition_key,
    layout,
    new_array,
    open_array,
    read_header,
    reopen_array,
    to_array,
    to_tensor,
)

_MAX_CODEBOOK_SIZE = 2**16  # tokens are stored as uint16


class ConditionSpec(NamedTuple):
    """What a condition holds per item."""

    dtype: str  # NumPy name, such as "int64" or "float16"
    shape: tuple[int, ...] = ()


class TokenStoreWriter:
    """Writes a token store front to back; a writer that was cut off goes on where it stopped.

    Args:
        path: folder, made if missing. An incomplete store there is continued.
        num_items: number of items N.
        grid_size: height and width of a token grid.
        codebook_size: number of codes, at most 65,536.
        conditions: what is stored beside the tokens: name to ``(dtype, shape per item)``.
        metadata: JSON values to keep with the store, such as the tokenizer's hash.

    Raises:
        ValueError: if a value is out of range, or the folder holds a store that is complete, was
            begun with other arguments or is damaged.
        OSError: if the disk has no room for the whole store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        num_items: int,
        grid_size: tuple[int, int],
        codebook_size: int,
        conditions: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        if not 1 <= codebook_size <= _MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"codebook_size must be in [1, {_MAX_CODEBOOK_SIZE}], got {codebook_size}"
            )
        self.path = Path(path)
        self._specs = {
            name: ConditionSpec(np.dtype(dtype).name, tuple(shape))
            for name, (dtype, shape) in conditions.items()
        }
        description = {
            "num_items": num_items,
            "grid_size": list(grid_size),
            "codebook_size": codebook_size,
            "conditions": {
                name: {"dtype": spec.dtype, "shape": list(spec.shape)}
                for name, spec in self._specs.items()
            },
            "metadata": dict(metadata or {}),
        }
        self._description: dict[str, Any] = json.loads(json.dumps(description))
        self._num_written = 0
        self.path.mkdir(parents=True, exist_ok=True)
        resuming = (self.path / HEADER).exists()
        if resuming:
            self._num_written = self._check_resumable(read_header(self.path))
        provide = reopen_array if resuming else new_array
        self._arrays = {
            name: provide(*entry) for name, entry in layout(self.path, self._description).items()
        }
        if not resuming:
            self._write_header(complete=False)

    @property
    def num_written(self) -> int:
        """Items safely on disk, and so the ``start`` of the next `write`."""
        return self._num_written

    def write(self, start: int, token_grid: Tensor, conditions: Mapping[str, Tensor]) -> None:
        """Appends a batch and flushes it.

        Args:
            start: index of the first item, which must be `num_written`.
            token_grid: (B, h, w) integer in [0, codebook_size).
            conditions: one tensor (B, ...) per condition, in the declared shape.

        Raises:
            ValueError: if the batch does not fit the store.
        """
        end = start + len(token_grid)
        num_items, codebook_size = (
            self._description[key] for key in ("num_items", "codebook_size")
        )
        if start != self._num_written:
            raise ValueError(f"the next item to write is {self._num_written}, got start {start}")
        if end > num_items:
            raise ValueError(f"items {start} to {end - 1} go past the end of {num_items} items")
        if conditions.keys() != self._specs.keys():
            raise ValueError(
                f"expected the conditions {sorted(self._specs)}, got {sorted(conditions)}"
            )
        if token_grid.numel():
            low, high = (int(value) for value in token_grid.aminmax())
            if low < 0 or high >= codebook_size:
                raise ValueError(f"token ids must be in [0, {codebook_size}), got {low} to {high}")
        batch = {"tokens": token_grid}
        batch |= {condition_key(name): values for name, values in conditions.items()}
        for name, values in batch.items():
            expected = (end - start, *self._arrays[name].shape[1:])
            if tuple(values.shape) != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(values.shape)}")
        arrays = {name: to_array(values) for name, values in batch.items()}
        for name, array in arrays.items():
            check_fits(name, array, self._arrays[name].dtype)
        for name, array in arrays.items():
            self._arrays[name][start:end] = array
            self._arrays[name].flush()
        self._num_written = end
        self._write_header(complete=False)

    def close(self) -> None:
        """Marks the store as complete.

        Raises:
            ValueError: if items are missing.
        """
        num_items = self._description["num_items"]
        if self._num_written != num_items:
            raise ValueError(
                f"cannot complete token store {self.path}: "
                f"{self._num_written} of {num_items} items are written"
            )
        self._write_header(complete=True)

    def _check_resumable(self, header: Mapping[str, Any]) -> int:
        if header["complete"]:
            raise ValueError(
                f"token store {self.path} is already complete: read it with TokenStore, "
                "or delete the folder to write it anew"
            )
        differing = [key for key, value in self._description.items() if header[key] != value]
        if differing:
            details = "; ".join(
                f"{key} is {header[key]} on disk, {self._description[key]} was asked for"
                for key in differing
            )
            raise ValueError(
                f"token store {self.path} was begun differently ({details}): "
                "use another folder, or delete this one"
            )
        return int(header["num_written"])

    def _write_header(self, *, complete: bool) -> None:
        header = {**self._description, "num_written": self._num_written, "complete": complete}
        temporary = self.path / f"{HEADER}.tmp"
        with temporary.open("w") as file:
            json.dump(header, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / HEADER)


class TokenStore:
    """Reads a complete token store.

    Attributes:
        tokens: (N, h, w) uint16, memory-mapped.
        conditions: name to memory-mapped array (N, ...).
        grid_size: height and width of a token grid.
        codebook_size: number of codes.
        metadata: as given to the writer.

    Raises:
        FileNotFoundError: if the folder holds no token store.
        ValueError: if the store is incomplete or its files do not fit its description.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        header = read_header(self.path)
        if not header["complete"]:
            raise ValueError(
                f"token store {self.path} is incomplete, {header['num_written']} of "
                f"{header['num_items']} items are written: let its writer finish"
            )
        self.grid_size: tuple[int, int] = (header["grid_size"][0], header["grid_size"][1])
        self.codebook_size: int = header["codebook_size"]
        self.metadata: dict[str, Any] = header["metadata"]
        arrays = {name: open_array(*entry) for name, entry in layout(self.path, header).items()}
        self.tokens = arrays["tokens"]
        self.conditions = {name: arrays[condition_key(name)] for name in header["conditions"]}

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads the items at ``indices`` (B,), in that order.

        Returns:
            The token grid (B, h, w) int64 and the conditions (B, ...), integers as int64.

        Raises:
            IndexError: if an index is not in [0, N).
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and rows.min() < 0:  # NumPy would count from the end
            raise IndexError(f"index {rows.min()} is out of range: items lie in [0, {len(self)})")
        conditions = {name: to_tensor(array[rows]) for name, array in self.conditions.items()}
        return to_tensor(self.tokens[rows]), conditions
