"""The real side of a comparison: features, or statistics that others computed."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adanat.checkpoints import atomic_write
from adanat.errors import DataError
from adanat.evaluation.archives import IMAGES_MEMBER, UNREADABLE
from adanat.evaluation.chunks import FeatureStore
from adanat.evaluation.extractors import FEATURES, Identity
from adanat.evaluation.opening import open_images
from adanat.evaluation.sources import FirstOf, Source, hash_files
from adanat.metrics import FeatureStatistics, KernelSubsets, OwnPairs, own_pairs
from adanat.metrics.features import FloatArray

MAX_NEIGHBORHOOD = 5
"""Of the balls that a reference's features are asked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceSide:
    """What generated features of one extractor are compared with.

    Attributes:
        identity: The extractor.
        store: The real images' features; None where a file of statistics is all that is needed.
        given: That file's mean and covariance, which then stand for those of the features.
        subsets: KID's, where it comes along with figures that look at all pairs.
    """

    identity: Identity
    store: FeatureStore | None
    given: FeatureStatistics | None = None
    subsets: KernelSubsets | None = None

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance; those of the features are kept beside them."""
        if self.given is not None:
            return self.given
        return _statistics_of(self._features_store, self.identity)

    @cached_property
    def features(self) -> FloatArray:
        """float32 (M, D)."""
        return self._features_store.read(FEATURES)

    @property
    def num_images(self) -> int:
        """How many real images there are features of."""
        return self._features_store.num_images

    def pairs(self, neighborhood: int) -> OwnPairs:
        """`own_pairs` of the features, for balls through at most neighbour `MAX_NEIGHBORHOOD`.

        Raises:
            DataError: There are too few real images.
        """
        if neighborhood >= self.num_images:
            raise DataError(
                f"balls through neighbour {neighborhood} need more real images than "
                f"{self.num_images}"
            )
        return self._pairs

    @cached_property
    def _pairs(self) -> OwnPairs:
        count = min(1 + MAX_NEIGHBORHOOD, self.num_images)
        members = self.subsets.reference if self.subsets else None
        return own_pairs(self.features, count=count, members=members)

    @property
    def _features_store(self) -> FeatureStore:
        if self.store is None:
            raise ValueError("no features of the real images were collected")
        return self.store


class RealImages:
    """The real side as the user names it: images, statistics, or (as ADM has it) both in one file.

    Args:
        where: As `open_images` takes it, an `.npz` with `mu` and `sigma`, or images already open.
        count: Only the first images are used; None for all. Statistics in a file stay as they are.
        foreign: Name of the extractor behind statistics that do not say so themselves.

    Raises:
        DataError: There is nothing of the kind.
    """

    def __init__(self, where: str | Source, *, count: int | None, foreign: str) -> None:
        self._where = where if isinstance(where, str) else where.description
        self._foreign = foreign
        members = _members(Path(where)) if isinstance(where, str) else set()
        self._statistics = Path(self._where) if {"mu", "sigma"} <= members else None
        self.images: Source | None = None
        if self._statistics is None or IMAGES_MEMBER in members:
            images = open_images(where) if isinstance(where, str) else where
            self.images = images if count is None else FirstOf(images, count)

    @property
    def description(self) -> str:
        parts = [f"statistics of {self._where}"] if self._statistics else []
        return " and ".join(parts + ([self.images.description] if self.images else []))

    @cached_property
    def key(self) -> str:
        """Hash of the content, for results: only figures against one reference are compared."""
        if self.images is not None:
            return self.images.key
        return hash_files([Path(self._where)], Path(self._where).parent)

    def needs_features(self, identity: Identity, *, of_images: bool) -> bool:
        """Whether the images are to go through this extractor.

        Args:
            identity: The extractor.
            of_images: Whether a figure compares single images, beyond mean and covariance.

        Raises:
            DataError: There are no images for it, or no statistics that fit.
        """
        if self.images is None and of_images:
            raise DataError(
                f"{self._where} holds statistics alone, which serve Frechet distances; KID, "
                "precision, recall, density and coverage need --reference to hold images"
            )
        return of_images or self._given(identity) is None

    def side(
        self,
        identity: Identity,
        store: FeatureStore | None,
        subsets: KernelSubsets | None = None,
    ) -> ReferenceSide:
        """What one extractor's features are compared with.

        Args:
            identity: The extractor.
            store: The collected features of the images; None where they are not needed.
            subsets: As `ReferenceSide` has them.

        Raises:
            DataError: The file's statistics are of another extractor, and there are no images.
        """
        given = self._given(identity)
        return ReferenceSide(identity=identity, store=store, given=given, subsets=subsets)

    def _given(self, identity: Identity) -> FeatureStatistics | None:
        """The file's statistics, unless there are images and these are of another extractor."""
        if self._statistics is None:
            return None
        if self.images is not None and identity.name != self._foreign:
            return None
        return load_statistics(self._statistics, identity, foreign=self._foreign)


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
    except UNREADABLE as error:
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
    except UNREADABLE as error:
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
