"""The figures: what each is called, what it needs, how it is computed, and its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from adanat.evaluation.chunks import FeatureStore
from adanat.evaluation.extractors import FEATURES, LOGITS, SCORES
from adanat.evaluation.references import ReferenceSide
from adanat.metrics import (
    FeatureStatistics,
    Interval,
    Membership,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
    membership,
    share_interval,
    t_interval,
)
from adanat.metrics.features import FloatArray

MetricName = Literal[
    "fid",
    "kid",
    "fid-adm",
    "inception-score",
    "lite2",
    "lite2-kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "clip-score",
]
ManifoldName = Literal["lite2", "clean", "adm"]
IS_SPLITS = 10
NEIGHBORHOOD = 3
DENSITY_NEIGHBORHOOD = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One set of generated images seen by one extractor, and its reference.

    Attributes:
        store: The generated side's outputs.
        reference: The real side; None where the figure needs none.
        seed: Seed of everything drawn while scoring.
    """

    store: FeatureStore
    reference: ReferenceSide | None
    seed: int

    @cached_property
    def features(self) -> FloatArray:
        """float32 (N, D) of the generated side."""
        return self.store.read(FEATURES)

    @property
    def real(self) -> ReferenceSide:
        """The real side. Raises ValueError without one."""
        if self.reference is None:
            raise ValueError("no reference is given: name real images by --reference")
        return self.reference

    @cached_property
    def inside(self) -> Membership:
        """Who lies in whose ball."""
        return membership(self.features, self.real.features, neighborhood=NEIGHBORHOOD)

    @cached_property
    def density_coverage(self) -> tuple[float, float]:
        return density_coverage(
            self.features, self.real.features, neighborhood=DENSITY_NEIGHBORHOOD
        )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One kind of figure.

    Attributes:
        extractor: Whose outputs it is computed from; None leaves the choice to the user.
        protocol: How, in a line.
        better: Which direction is better.
        needs_reference: Whether there is a real side.
        value: The figure.
        interval: By resampling images; None where that would be biased.
    """

    extractor: str | None
    protocol: str
    better: Literal["lower", "higher"]
    needs_reference: bool = True
    value: Callable[[Sample], float]
    interval: Callable[[Sample, float], Interval] | None = None


def _frechet(sample: Sample) -> float:
    generated = FeatureStatistics.of_chunks(sample.store.chunks(FEATURES))
    return frechet_distance(generated, sample.real.statistics)


def _kernel(sample: Sample) -> float:
    return kernel_distance(sample.features, sample.real.features, seed=sample.seed)


def _kernel_interval(sample: Sample, value: float) -> Interval:
    return kernel_distance_interval(
        sample.features, sample.real.features, value=value, seed=sample.seed
    )


def _inception_score(sample: Sample) -> float:
    found = isc_features_to_metric(
        torch.from_numpy(sample.store.read(LOGITS)), splits=IS_SPLITS, rng_seed=sample.seed
    )
    return float(found[KEY_METRIC_ISC_MEAN])


_FRECHET = "Frechet distance, symmetric eigenvalues"
_KID = "KID, 100 subsets of at most 1,000, clean-fid"
_BALLS = f"balls through neighbour {NEIGHBORHOOD}, arXiv 1904.06991"
_DENSE = f"balls through neighbour {DENSITY_NEIGHBORHOOD}, arXiv 2002.09797"

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "fid": Metric(extractor="clean", protocol=_FRECHET, better="lower", value=_frechet),
        "kid": Metric(
            extractor="clean",
            protocol=_KID,
            better="lower",
            value=_kernel,
            interval=_kernel_interval,
        ),
        "fid-adm": Metric(extractor="adm", protocol=_FRECHET, better="lower", value=_frechet),
        "inception-score": Metric(
            extractor="adm",
            protocol=f"{IS_SPLITS} splits, shuffled, torch-fidelity",
            better="higher",
            needs_reference=False,
            value=_inception_score,
        ),
        "lite2": Metric(extractor="lite2", protocol=_FRECHET, better="lower", value=_frechet),
        "lite2-kid": Metric(
            extractor="lite2",
            protocol=_KID,
            better="lower",
            value=_kernel,
            interval=_kernel_interval,
        ),
        "precision": Metric(
            extractor=None,
            protocol=_BALLS,
            better="higher",
            value=lambda sample: sample.inside.precision,
            interval=lambda sample, _: share_interval(sample.inside.precise, seed=sample.seed),
        ),
        "recall": Metric(
            extractor=None,
            protocol=_BALLS,
            better="higher",
            value=lambda sample: sample.inside.recall,
            interval=lambda sample, _: share_interval(sample.inside.recalled, seed=sample.seed),
        ),
        "density": Metric(
            extractor=None,
            protocol=_DENSE,
            better="higher",
            value=lambda sample: sample.density_coverage[0],
        ),
        "coverage": Metric(
            extractor=None,
            protocol=_DENSE,
            better="higher",
            value=lambda sample: sample.density_coverage[1],
        ),
        "clip-score": Metric(
            extractor="clip",
            protocol="mean of 100 cos(image, caption), at least 0, arXiv 2104.08718",
            better="higher",
            needs_reference=False,
            value=lambda sample: float(sample.store.read(SCORES).mean()),
        ),
    }
)


def extractor_of(name: str, manifold: ManifoldName) -> str:
    """Name of the extractor that a metric needs."""
    return METRICS[name].extractor or manifold


def key_of(name: str, manifold: ManifoldName) -> str:
    """Name of a figure in results, which tells figures of different features apart."""
    fixed = {
        "fid": "fid_clean",
        "kid": "kid_clean",
        "fid-adm": "fid_adm",
        "lite2": "lite2_fd",
    }
    if METRICS[name].extractor is None:
        return f"{manifold}_{name}"
    return fixed.get(name, name.replace("-", "_"))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number with all that is needed to judge it.

    Attributes:
        key: Name in tables, such as `lite2_fd`.
        value: Mean over the seeds.
        by_seed: The value under each generation seed (one entry, 0, for given images).
        low: Lower end of the 95 % interval; None without one.
        high: Upper end.
        interval: What the interval is over.
        protocol: How it was computed.
        better: Which direction is better.
        extractor: The features' identity.
        num_samples: Generated images a seed.
        num_reference: Real images; None without a real side, 0 where a file does not say.
        scoring_seed: Seed of what is drawn while scoring.
    """

    key: str
    value: float
    by_seed: Mapping[str, float]
    low: float | None
    high: float | None
    interval: str | None
    protocol: str
    better: str
    extractor: Mapping[str, str]
    num_samples: int
    num_reference: int | None
    scoring_seed: int


def score(
    name: str,
    samples: Mapping[int, Sample],
    *,
    key: str,
    extractor: Mapping[str, str],
) -> Figure:
    """One figure over all generation seeds.

    With several seeds the interval is Student's over the seeds; with one it comes from resampling
    images, for the figures that this does not bias.

    Args:
        name: A key of `METRICS`.
        samples: By generation seed, at least one; all of equal size.
        key: The figure's name.
        extractor: The features' identity, for the record.
    """
    metric, first = METRICS[name], next(iter(samples.values()))
    values = {seed: metric.value(sample) for seed, sample in samples.items()}
    interval, over = None, None
    if len(values) > 1:
        interval, over = t_interval(list(values.values())), f"{len(values)} generation seeds"
    elif metric.interval is not None:
        interval = metric.interval(first, next(iter(values.values())))
        over = "resampled images"
    return Figure(
        key=key,
        value=sum(values.values()) / len(values),
        by_seed={str(seed): value for seed, value in values.items()},
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval=over and f"95 % over {over}",
        protocol=metric.protocol,
        better=metric.better,
        extractor=extractor,
        num_samples=first.store.num_images,
        num_reference=first.reference.statistics.count if first.reference else None,
        scoring_seed=first.seed,
    )
