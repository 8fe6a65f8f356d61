"""The kinds of figures: what each is called, what it needs, how it is computed, resampled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from vqtok import codebook_statistics

from adanat.errors import DataError
from adanat.evaluation.chunks import FeatureStore
from adanat.evaluation.extractors import (
    CODEBOOK_SIZE,
    CODES,
    FEATURES,
    L1,
    LOGITS,
    PSNR,
    SCORES,
    SSIM,
)
from adanat.evaluation.references import ReferenceSide
from adanat.metrics import (
    FeatureStatistics,
    Interval,
    Membership,
    compare_pairs,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
    mean_interval,
    share_interval,
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
    "psnr",
    "ssim",
    "l1",
    "codebook-usage",
    "codebook-perplexity",
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

    @property
    def inside(self) -> Membership:
        """Who lies in whose ball."""
        return self._pairs[0]

    @property
    def kernel_distance(self) -> float:
        """KID: by the pairs of all images where another figure needs them, else by clean-fid."""
        if self.real.subsets is not None:
            return self._pairs[1]
        return kernel_distance(self.features, self.real.features, seed=self.seed)

    @cached_property
    def _pairs(self) -> tuple[Membership, float]:
        return compare_pairs(
            self.features,
            self.real.features,
            neighborhood=NEIGHBORHOOD,
            subsets=self.real.subsets,
            reference_pairs=self.real.pairs(NEIGHBORHOOD),
        )

    @cached_property
    def density_coverage(self) -> tuple[float, float]:
        return density_coverage(
            self.features,
            self.real.features,
            neighborhood=DENSITY_NEIGHBORHOOD,
            reference_pairs=self.real.pairs(DENSITY_NEIGHBORHOOD),
        )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One kind of figure.

    Attributes:
        extractor: Whose outputs it is computed from; None leaves the choice to the user.
        protocol: How, in a line.
        better: Which direction is better.
        compares: What of the real side it needs: mean and covariance, or the features of each
            image; None where there is no real side.
        value: The figure.
        interval: By resampling images; None where that would be biased.
    """

    extractor: str | None
    protocol: str
    better: Literal["lower", "higher"]
    compares: Literal["statistics", "features"] | None
    value: Callable[[Sample], float]
    interval: Callable[[Sample, float], Interval] | None = None


def _frechet(sample: Sample) -> float:
    generated = FeatureStatistics.of_chunks(sample.store.chunks(FEATURES))
    return frechet_distance(generated, sample.real.statistics)


def _inception_score(sample: Sample) -> float:
    from torch_fidelity import metric_isc  # with torchvision, which imports PyTorch's compiler

    if sample.store.num_images < IS_SPLITS:
        raise DataError(
            f"the Inception Score is a mean over {IS_SPLITS} splits: {sample.store.num_images} "
            "images are too few"
        )
    found = metric_isc.isc_features_to_metric(
        torch.from_numpy(sample.store.read(LOGITS)), splits=IS_SPLITS, rng_seed=sample.seed
    )
    return float(found[metric_isc.KEY_METRIC_ISC_MEAN])


def _frechet_metric(extractor: str) -> Metric:
    return Metric(
        extractor=extractor,
        protocol="Frechet distance, symmetric eigenvalues",
        better="lower",
        compares="statistics",
        value=_frechet,
    )


def _kernel_metric(extractor: str) -> Metric:
    return Metric(
        extractor=extractor,
        protocol="KID, mean over 100 subsets of at most 1,000, clean-fid",
        better="lower",
        compares="features",
        value=lambda sample: sample.kernel_distance,
        interval=lambda sample, value: kernel_distance_interval(
            sample.features, sample.real.features, value=value, seed=sample.seed
        ),
    )


def _ball_metric(
    protocol: str,
    value: Callable[[Sample], float],
    interval: Callable[[Sample, float], Interval] | None = None,
) -> Metric:
    return Metric(
        extractor=None,
        protocol=protocol,
        better="higher",
        compares="features",
        value=value,
        interval=interval,
    )


def _mean_metric(
    extractor: str, output: str, protocol: str, better: Literal["lower", "higher"]
) -> Metric:
    return Metric(
        extractor=extractor,
        protocol=protocol,
        better=better,
        compares=None,
        value=lambda sample: float(sample.store.read(output).mean(dtype=np.float64)),
        interval=lambda sample, _: mean_interval(sample.store.read(output), seed=sample.seed),
    )


def _codebook_metric(name: str, protocol: str) -> Metric:
    def value(sample: Sample) -> float:
        codes = torch.from_numpy(sample.store.read(CODES))
        return codebook_statistics(codes, int(sample.store.read(CODEBOOK_SIZE)[0]))[name]

    return Metric(
        extractor="pixels", protocol=protocol, better="higher", compares=None, value=value
    )


_BALLS = f"balls through neighbour {NEIGHBORHOOD}, arXiv 1904.06991"
_DENSE = f"balls through neighbour {DENSITY_NEIGHBORHOOD}, arXiv 2002.09797"

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "fid": _frechet_metric("clean"),
        "kid": _kernel_metric("clean"),
        "fid-adm": _frechet_metric("adm"),
        "inception-score": Metric(
            extractor="adm",
            protocol=f"{IS_SPLITS} splits, shuffled, torch-fidelity",
            better="higher",
            compares=None,
            value=_inception_score,
        ),
        "lite2": _frechet_metric("lite2"),
        "lite2-kid": _kernel_metric("lite2"),
        "precision": _ball_metric(
            _BALLS,
            lambda sample: sample.inside.precision,
            lambda sample, _: share_interval(sample.inside.precise, seed=sample.seed),
        ),
        "recall": _ball_metric(
            _BALLS,
            lambda sample: sample.inside.recall,
            lambda sample, _: share_interval(sample.inside.recalled, seed=sample.seed),
        ),
        "density": _ball_metric(_DENSE, lambda sample: sample.density_coverage[0]),
        "coverage": _ball_metric(_DENSE, lambda sample: sample.density_coverage[1]),
        "clip-score": _mean_metric(
            "clip",
            SCORES,
            "mean of 100 max(cos(image, caption), 0), no prompt, after arXiv 2104.08718",
            "higher",
        ),
        "psnr": _mean_metric("pixels", PSNR, "dB, mean over images, torchmetrics", "higher"),
        "ssim": _mean_metric(
            "pixels", SSIM, "Gaussian window of 11 pixels, mean over images, torchmetrics", "higher"
        ),
        "l1": _mean_metric("pixels", L1, "mean absolute error of pixels in [0, 1]", "lower"),
        "codebook-usage": _codebook_metric("usage", "share of the codes that occur"),
        "codebook-perplexity": _codebook_metric(
            "perplexity", "exponential of the entropy of the codes' frequencies"
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
