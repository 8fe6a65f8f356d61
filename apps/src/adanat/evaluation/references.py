"""The real side of a comparison: features, or statistics that others computed."""

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adanat.checkpoints import atomic_write
from adanat.errors import DataError
from adanat.evaluation.archives import IMAGES_MEMBER
from adanat.evaluation.chunks import FeatureStore
from adanat.evaluation.extractors import FEATURES, Identity
from adanat.evaluation.opening import open_images
from adanat.evaluation.sources import FirstOf, Source
from adanat.metrics import FeatureStatistics
from adanat.metrics.features import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceSide:
    """What generated features of one extractor are compared with.

    Attributes:
        description: Which images, how many.
        identity: The extractor.
        statistics: Mean and covariance.
        store: The features themselves; None where only statistics are known.
    """

    description: str
    identity: Identity
    statistics: FeatureStatistics
    store: FeatureStore | None = None

    @cached_property
    def features(self) -> FloatArray:
        """float32 (M, D).

        Raises:
            DataError: Only statistics are known.
        """
        if self.store is None:
            raise DataError(
                f"{self.description}: a file of statistics is enough for Frechet distances; KID, "
                "precision, recall, density and coverage need --reference to hold images"
            )
        return self.store.read(FEATURES)


class RealImages:
    """The real side as the user names it: images, statistics, or (as ADM has it) both in one file.

    Args:
        where: As `open_images` takes it, or an `.npz` with `mu` and `sigma`.
        count: Only the first images are used; None for all. Statistics in a file stay as they are.
        foreign: Name of the extractor behind statistics that do not say so themselves.

    Raises:
        DataError: There is nothing of the kind.
    """

    def __init__(self, where: str, *, count: int | None, foreign: str) -> None:
        self._where, self._foreign = where, foreign
        path = Path(where)
        members = _members(path)
        self._statistics = path if {"mu", "sigma"} <= members else None
        self.images: Source | None = None
        if self._statistics is None or IMAGES_MEMBER in members:
            images = open_images(where)
            self.images = images if count is None else FirstOf(images, count)

    @property
    def description(self) -> str:
        parts = [f"statistics of {self._where}"] if self._statistics else []
        return " and ".join(parts + ([self.images.description] if self.images else []))

    def needs_images(self, identity: Identity) -> bool:
        """Whether features of the images are to be collected for this extractor."""
        if self.images is None and self._statistics is not None:
            load_statistics(self._statistics, identity, foreign=self._foreign)  # or say why not
        return self.images is not None

    def side(self, identity: Identity, store: FeatureStore | None) -> ReferenceSide:
        """What one extractor's features are compared with.

        Args:
            identity: The extractor.
            store: The collected features of the images, where there are images.

        Raises:
            DataError: The file's statistics are of another extractor, and there are no images.
        """
        if self._statistics is not None and (store is None or identity.name == self._foreign):
            statistics = load_statistics(self._statistics, identity, foreign=self._foreign)
        elif store is not None:
            statistics = _statistics_of(store, identity)
        else:
            raise DataError(f"no features of {self._where} are collected")
        return ReferenceSide(
            description=self.description, identity=identity, statistics=statistics, store=store
        )


def _statistics_of(store: FeatureStore, identity: Identity) -> FeatureStatistics:
    """Computed once and kept beside the features, which are kept by content."""
    path = store.folder / "statistics.npz"
    if not path.is_file():
        save_statistics(path, FeatureStatistics.of_chunks(store.chunks(FEATURES)), identity)
    return load_statistics(path, identity, foreign=identity.name)


def _members(path: Path) -> set[str]:
    """Names of the arrays in an `.npz` file; none for anything else."""
    if path.suffix != ".npz" or not path.is_file():
        return set()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return set(arrays.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def save_statistics(path: Path, statistics: FeatureStatistics, identity: Identity) -> None:
    """Write `mu` and `sigma` as ADM's files have them, and a record of what they are.

    Raises:
        StorageError: The file cannot be written.
    """
    record = json.dumps({"num_images": statistics.count, "extractor": identity.to_json()})

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, mu=statistics.mean, sigma=statistics.covariance, record=np.array(record))

    atomic_write(path, write)


def load_statistics(path: Path, identity: Identity, *, foreign: str | None) -> FeatureStatistics:
    """Read `mu` and `sigma` for comparison with one extractor's features.

    Args:
        path: As `save_statistics` writes it, or of ADM or clean-fid, which say nothing of how they
            were made.
        identity: The extractor of the generated side.
        foreign: Name of the extractor that a file without a record was made with.

    Raises:
        DataError: The file cannot be read, or was made with another extractor or resize mode.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
            record = json.loads(str(arrays["record"])) if "record" in arrays else None
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"cannot read mu and sigma from {path}: {error}") from error
    if covariance.shape != (mean.size, mean.size) or mean.ndim != 1:
        raise DataError(
            f"{path} has mu of shape {mean.shape} and sigma of shape {covariance.shape}; (D,) and "
            "(D, D) are needed"
        )
    _refuse_mismatch(path, record, identity, foreign)
    count = record["num_images"] if record else 0
    return FeatureStatistics(mean=mean, covariance=covariance, count=count)


def _refuse_mismatch(
    path: Path, record: dict[str, Any] | None, identity: Identity, foreign: str | None
) -> None:
    if record is None:
        if foreign != identity.name:
            raise DataError(
                f"{path} does not say how it was made and is taken for a file of the protocol "
                f"{foreign!r}, but a figure on {identity.name!r} was asked for. Name the protocol "
                "by --statistics-protocol, or give --reference images."
            )
        return
    made = record["extractor"]
    differences = [
        f"{name}: the file has {made.get(name)!r}, the samples have {value!r}"
        for name, value in identity.to_json().items()
        if made.get(name) != value
    ]
    if differences:
        raise DataError(f"{path} does not fit: {'; '.join(differences)}")
