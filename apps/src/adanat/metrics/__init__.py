"""Metrics of generated images: distances on pooled features, and intervals over seeds."""

from adanat.metrics.bootstrap import kernel_distance_interval, mean_interval, share_interval
from adanat.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    accuracy,
    train_classifier,
)
from adanat.metrics.distances import (
    FeatureStatistics,
    PrincipalComponents,
    frechet_distance,
    kernel_distance,
)
from adanat.metrics.features import (
    PooledFeatures,
    extract_features,
    extract_features_cached,
    to_uint8,
)
from adanat.metrics.intervals import (
    Interval,
    equivalent_steps,
    gap_share,
    paired_gain,
    t_interval,
)
from adanat.metrics.kernels import KernelSubsets
from adanat.metrics.neighbours import (
    Membership,
    OwnPairs,
    compare_pairs,
    density_coverage,
    nearest_neighbours,
    own_pairs,
    precision_recall,
)
from adanat.metrics.scores import (
    Reference,
    all_scores,
    frechet_score,
    projected_frechet_score,
)

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ClassifierTrainingConfig",
    "FeatureStatistics",
    "Interval",
    "KernelSubsets",
    "Membership",
    "OwnPairs",
    "PooledFeatures",
    "PrincipalComponents",
    "Reference",
    "accuracy",
    "all_scores",
    "compare_pairs",
    "density_coverage",
    "equivalent_steps",
    "extract_features",
    "extract_features_cached",
    "frechet_distance",
    "frechet_score",
    "gap_share",
    "kernel_distance",
    "kernel_distance_interval",
    "mean_interval",
    "nearest_neighbours",
    "own_pairs",
    "paired_gain",
    "precision_recall",
    "projected_frechet_score",
    "share_interval",
    "t_interval",
    "to_uint8",
    "train_classifier",
]
