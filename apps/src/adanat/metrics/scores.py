"""All scores of one set of samples against one reference set."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from adanat.metrics.distances import FeatureStatistics, PrincipalComponents, frechet_distance
from adanat.metrics.features import FloatArray
from adanat.metrics.kernels import KernelSubsets
from adanat.metrics.neighbours import OwnPairs, compare_pairs, own_pairs

_NUM_DISTANCES = 4  # of a vector to itself and to three neighbours


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference:
    """Features of the real images, with what can be computed once.

    Attributes:
        features: float32 (M, D).
        num_components: Principal components of the variant for tiny sets, at most.
    """

    features: FloatArray
    num_components: int = 64
    _subsets: dict[tuple[int, int], tuple[KernelSubsets, OwnPairs]] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance of the features."""
        return FeatureStatistics.of(self.features)

    @cached_property
    def pairs(self) -> OwnPairs:
        """Nearest distances within the features, for the balls of precision and recall."""
        return own_pairs(self.features, count=_NUM_DISTANCES)

    def kernel_pairs(self, num_generated: int, *, seed: int) -> tuple[KernelSubsets, OwnPairs]:
        """KID's subsets against so many samples, and `pairs` with their sums; kept."""
        key = (num_generated, seed)
        if key not in self._subsets:
            subsets = KernelSubsets.draw(num_generated, len(self.features), seed=seed)
            own = own_pairs(self.features, count=_NUM_DISTANCES, members=subsets.reference)
            self._subsets[key] = subsets, own
        return self._subsets[key]

    @cached_property
    def components(self) -> PrincipalComponents:
        """The leading components, fitted on these features."""
        return PrincipalComponents.fit(self.features, self.num_components)

    @cached_property
    def projected_statistics(self) -> FeatureStatistics:
        """Mean and covariance along the leading components."""
        return FeatureStatistics.of(self.components.project(self.features))


def frechet_score(generated: FloatArray, reference: Reference) -> float:
    """Frechet distance of (N, D) features to the reference: the one number of a sweep."""
    return frechet_distance(FeatureStatistics.of(generated), reference.statistics)


def projected_frechet_score(generated: FloatArray, reference: Reference) -> float:
    """Frechet distance along the reference's leading principal components, for tiny sets."""
    projected = reference.components.project(generated)
    return frechet_distance(FeatureStatistics.of(projected), reference.projected_statistics)


def all_scores(
    generated: FloatArray, reference: Reference, *, prefix: str, kid_seed: int = 0
) -> dict[str, float]:
    """Every score of one sample set.

    Args:
        generated: float32 (N, D).
        reference: The real side.
        prefix: Name of the features, such as "lite2"; it opens every key.
        kid_seed: Seed of the kernel distance's subsets.

    Returns:
        `{prefix}_fd`, `{prefix}_kid`, `{prefix}_precision`, `{prefix}_recall`, and
        `{prefix}_fd_pca{K}` where the reference is large enough for K components.
    """
    subsets, reference_pairs = reference.kernel_pairs(len(generated), seed=kid_seed)
    inside, kid = compare_pairs(
        generated, reference.features, subsets=subsets, reference_pairs=reference_pairs
    )
    scores = {
        f"{prefix}_fd": frechet_score(generated, reference),
        f"{prefix}_kid": kid,
        f"{prefix}_precision": inside.precision,
        f"{prefix}_recall": inside.recall,
    }
    num_components = reference.num_components
    if num_components <= min(len(reference.features) - 1, reference.features.shape[1]):
        scores[f"{prefix}_fd_pca{num_components}"] = projected_frechet_score(generated, reference)
    return scores
