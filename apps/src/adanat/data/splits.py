"""Which images train, which choose, which judge: decided by hashes, for ever the same."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from adanat.data.sources import SourceImages
from adanat.errors import DataError

SPLITS = ("fit", "validation", "test")

_HELD_OUT = {"digits": (300, 300), "fashion-mnist": (10_000, 10_000)}
"""Items in the validation and the test split of each source."""


def split_indices(name: str, source: SourceImages) -> dict[str, NDArray[np.int64]]:
    """Divide a data set into ``fit``, ``validation`` and ``test``.

    The publisher's test set is the test split where there is one. What else is held out is
    stratified by class and chosen by a hash of the source's name and the item's index.

    Args:
        name: The source's name, one of ``SOURCES``.
        source: The data set.

    Returns:
        For each split its indices into the data set, ascending; together every index once.
    """
    if name not in _HELD_OUT:
        raise DataError(f"no split is defined for {name!r}; known are {', '.join(_HELD_OUT)}")
    num_validation, num_test = _HELD_OUT[name]
    rest = np.arange(len(source.labels) - source.num_test)
    test = np.arange(len(rest), len(source.labels))
    if source.num_test == 0:
        test = _hold_out(f"{name}/test", rest, source.labels, num_test)
        rest = np.setdiff1d(rest, test)
    validation = _hold_out(f"{name}/validation", rest, source.labels, num_validation)
    return {"fit": np.setdiff1d(rest, validation), "validation": validation, "test": test}


def _hold_out(
    key: str, candidates: NDArray[np.int64], labels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Choose ``count`` candidates, each class in its share (largest remainders), by hash."""
    classes, sizes = np.unique(labels[candidates], return_counts=True)
    shares = sizes * (count / len(candidates))
    quotas = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(quotas - shares, kind="stable")
    quotas[by_remainder[: count - quotas.sum()]] += 1
    chosen = []
    for label, quota in zip(classes, quotas, strict=True):
        members = candidates[labels[candidates] == label]
        ranked = sorted(
            members.tolist(), key=lambda i: hashlib.sha256(f"{key}/{i}".encode()).digest()
        )
        chosen += ranked[:quota]
    return np.array(sorted(chosen), dtype=np.int64)
